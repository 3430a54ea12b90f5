"""Clients that stream completions from a server of the OpenAI protocol.

Each client asks for its next text as soon as the last one is complete. They run in a process of
their own, and read sockets without a library of HTTP, to take little time from the server.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

_LINE_BYTES = 1 << 20


def measure(port: int, prompts: Sequence[Sequence[int]], *, clients: int, **fields: Any
            ) -> dict[str, float]:
  """Sends all prompts, from another process.

  Args:
    port: of the server, on loopback.
    prompts: token ids of each.
    clients: how many ask at the same time.
    **fields: of every request.

  Returns:
    'tokens' of the completions, 'seconds', and percentiles of the time to the first piece of a text
    and between its pieces.
  """
  done = subprocess.run([sys.executable, __file__, '--port', str(port), '--clients', str(clients)],
                        input=json.dumps([{'prompt': prompt, **fields} for prompt in prompts]),
                        stdout=subprocess.PIPE, text=True, check=True)
  return json.loads(done.stdout)


def main() -> None:
  """Sends the requests of standard input and prints what was measured."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ('port', 'clients'):
    parser.add_argument(f'--{name}', type=int, required=True)
  args = parser.parse_args()
  print(json.dumps(asyncio.run(_ask_all(args.port, json.load(sys.stdin), args.clients))))


async def _ask_all(port: int, requests: list[dict[str, Any]], clients: int) -> dict[str, float]:
  left, times = iter(requests), defaultdict(list)
  async def client() -> int:
    return sum([await _ask(port, fields, times) for fields in left])
  begin = time.perf_counter()
  tokens = sum(await asyncio.gather(*(client() for _ in range(clients))))
  seconds = time.perf_counter() - begin
  return {'tokens': tokens, 'seconds': seconds,
          **{f'{name} {cut} (s)': value for name, values in times.items()
             for cut, value in _percentiles(values).items()}}


async def _ask(port: int, fields: dict[str, Any], times: dict[str, list[float]]) -> int:
  """Returns the number of tokens that one request got."""
  body = json.dumps({**fields, 'stream': True, 'stream_options': {'include_usage': True}}).encode()
  begin, last = time.perf_counter(), None
  reader, writer = await asyncio.open_connection('127.0.0.1', port, limit=_LINE_BYTES)
  writer.write(b'POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n'
               b'Content-Type: application/json\r\nContent-Length: %d\r\n\r\n' % len(body) + body)
  data: dict[str, Any] = {}
  while line := await reader.readline():
    if line.startswith(b'data: {'):
      now, data = time.perf_counter(), json.loads(line[6:])
      if any(choice['text'] for choice in data['choices']):
        times['first piece' if last is None else 'between pieces'].append(
            now - (begin if last is None else last))
        last = now
  writer.close()
  return data['usage']['completion_tokens']


def _percentiles(values: Sequence[float]) -> dict[str, float]:
  cuts = statistics.quantiles(values, n=100)
  return {'p50': cuts[49], 'p99': cuts[98]}


if __name__ == '__main__':
  main()
