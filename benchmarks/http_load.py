"""Clients of the completions of a server of the OpenAI protocol.

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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LINE_BYTES = 1 << 20


def measure(port: int, prompts: Sequence[Sequence[int]], *, clients: int, **fields: Any
            ) -> dict[str, float]:
  """Streams the continuations of all prompts.

  Args:
    port: of the server, on loopback.
    prompts: token ids of each.
    clients: how many ask at the same time.
    **fields: of every request.

  Returns:
    'tokens' of the completions, 'seconds', and percentiles, see `percentiles`.

  Raises:
    SystemExit: the server has refused a request, or not completed it.
  """
  requests = [{'prompt': prompt, 'stream': True, 'stream_options': {'include_usage': True},
               **fields} for prompt in prompts]
  seconds, answers = send(port, requests, clients=clients)
  for answer in answers:
    if answer['error']:
      raise SystemExit(f'a request has failed: {answer["error"]}')
  return {'tokens': sum(answer['tokens'] for answer in answers), 'seconds': seconds,
          **percentiles(answers)}


def send(port: int, requests: Sequence[Mapping[str, Any]], *, clients: int,
         leave_after: Sequence[int | None] | None = None) -> tuple[float, list[dict[str, Any]]]:
  """Sends requests from another process.

  A request that the server refuses with status 429 is sent again, after the time that it says.

  Args:
    port: of the server, on loopback.
    requests: the fields of each.
    clients: how many ask at the same time.
    leave_after: after how many pieces of a stream its client goes away; None for never.

  Returns:
    the seconds, and of each request a dictionary: 'text', None if its client has left; 'tokens' of
    the completion, 0 where no usage was told; 'pieces', the seconds from the beginning to each
    piece of a stream; 'error', None if all is well.
  """
  leave_after = leave_after or [None] * len(requests)
  done = subprocess.run([sys.executable, __file__, '--port', str(port), '--clients', str(clients)],
                        input=json.dumps(list(zip(requests, leave_after, strict=True))),
                        stdout=subprocess.PIPE, text=True, check=True)
  seconds, answers = json.loads(done.stdout)
  return seconds, answers


def percentiles(answers: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Returns p50 and p99 of the times to the first piece of a text, between two, and of a token.

  The time of a token is the time from the first piece of a text to its end, divided by its tokens
  after the first one.
  """
  times: dict[str, list[float]] = {'first piece': [], 'between pieces': [], 'per token': []}
  for answer in answers:
    pieces = answer['pieces']
    times['first piece'] += pieces[:1]
    times['between pieces'] += [end - begin for begin, end in zip(pieces, pieces[1:], strict=False)]
    if answer['tokens'] > 1 and pieces:
      times['per token'].append((pieces[-1] - pieces[0]) / (answer['tokens'] - 1))
  cuts = {name: statistics.quantiles(values, n=100) for name, values in times.items()
          if len(values) > 1}
  return {f'{name} p{cut} (s)': values[cut - 1] for name, values in cuts.items()
          for cut in (50, 99)}


def main() -> None:
  """Sends the requests of standard input and prints the answers."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ('port', 'clients'):
    parser.add_argument(f'--{name}', type=int, required=True)
  args = parser.parse_args()
  print(json.dumps(asyncio.run(_ask_all(args.port, json.load(sys.stdin), args.clients))))


async def _ask_all(port: int, requests: Sequence[tuple[dict[str, Any], int | None]], clients: int
                   ) -> tuple[float, list[dict[str, Any]]]:
  answers: list[dict[str, Any]] = [{} for _ in requests]
  left: Iterator[tuple[int, tuple[dict[str, Any], int | None]]] = iter(enumerate(requests))
  async def client() -> None:
    for number, (fields, leave_after) in left:
      answers[number] = await _ask(port, fields, leave_after)
  begin = time.perf_counter()
  await asyncio.gather(*(client() for _ in range(clients)))
  return time.perf_counter() - begin, answers


async def _ask(port: int, fields: Mapping[str, Any], leave_after: int | None) -> dict[str, Any]:
  """Sends a request until it is not refused for want of room; returns its answer."""
  begin, body = time.perf_counter(), json.dumps(fields).encode()
  while True:
    reader, writer = await asyncio.open_connection('127.0.0.1', port, limit=_LINE_BYTES)
    try:
      writer.write(b'POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n'
                   b'Content-Type: application/json\r\nContent-Length: %d\r\n\r\n' % len(body)
                   + body)
      status, headers = await _read_head(reader)
      if status == 200:
        return await (_read_stream(reader, begin, leave_after) if fields.get('stream')
                      else _read_whole(reader))
      if status != 429:
        return _answer(error=f'{status} {(await reader.read()).decode()[:200]}')
    finally:
      writer.close()
    await asyncio.sleep(float(headers['retry-after']))


def _answer(text: str | None = None, tokens: int = 0, pieces: Sequence[float] = (),
            error: str | None = None) -> dict[str, Any]:
  return {'text': text, 'tokens': tokens, 'pieces': pieces, 'error': error}


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
  status = int((await reader.readline()).split()[1])
  headers = {}
  while line := (await reader.readline()).decode('latin-1').strip():
    name, _, value = line.partition(':')
    headers[name.lower()] = value.strip()
  return status, headers


async def _read_whole(reader: asyncio.StreamReader) -> dict[str, Any]:
  data = json.loads(await reader.read())
  return _answer(data['choices'][0]['text'], data['usage']['completion_tokens'])


async def _read_stream(reader: asyncio.StreamReader, begin: float, leave_after: int | None
                       ) -> dict[str, Any]:
  text, tokens, pieces = '', 0, []
  while len(pieces) != leave_after and (line := await reader.readline()):
    if line.startswith(b'data: {'):
      now, data = time.perf_counter(), json.loads(line[6:])
      if 'error' in data:
        return _answer(pieces=pieces, error=json.dumps(data['error']))
      if new := ''.join(choice['text'] for choice in data['choices']):
        pieces.append(now - begin)
        text += new
      tokens = (data.get('usage') or {}).get('completion_tokens', tokens)
    if line.startswith(b'data: [DONE]'):
      return _answer(text, tokens, pieces)
  if len(pieces) == leave_after:
    return _answer(pieces=pieces)
  return _answer(pieces=pieces, error='the stream has no end')


if __name__ == '__main__':
  main()
