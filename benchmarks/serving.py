"""The server under clients that stream, beside `generate` with as many slots.

    python benchmarks/serving.py [--clients 32] [--prompts 96] [--rounds 3]

Both continue the same word problems greedily with the calculator, 48 tokens each. Each client asks
for its next text as soon as the last one is complete, on loopback. Both sides run in turn in this
process. A line of JSON has the tokens a second of both in every round, the median of their ratio,
percentiles of the time to the first piece of a text and between pieces, and the number of programs
that the server compiled after its warm-up.
"""

import argparse
import asyncio
import json
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence

import generation
import httpx2

from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.server import Server, bind, make_app_state, open_executor
from toolformer_jax.tools.calculator import Calculator
from toolformer_jax.tools.executor import ExecutorConfig


def main() -> None:
  """Reads the options, runs both sides in turn and prints what was measured."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (('prompts', 96), ('clients', 32), ('max_tokens', 48), ('rounds', 3)):
    parser.add_argument(f'--{name}', type=int, default=default)
  args = parser.parse_args()
  model = load_model('smollm2-135m').for_inference()
  prompts = generation.read(model.tokenizer, args.prompts)
  config = GenerationConfig(max_tokens=args.max_tokens)
  engine_config = EngineConfig(args.clients, max_model_len=256)
  rounds: dict[str, list[float]] = defaultdict(list)
  times: dict[str, list[float]] = defaultdict(list)
  with open_executor([Calculator()], ExecutorConfig(), args.clients, ServingConfig(),
                     DEFAULT_SYNTAX) as executor:
    def generated() -> int:
      texts = generate(model, prompts, config=config, engine_config=engine_config,
                       executor=executor)
      return sum(len(text.token_ids) for text in texts)
    app_state = make_app_state(model, executor, name='smollm2-135m', engine_config=engine_config,
                               generation=config)
    bound = bind('127.0.0.1', 0)
    server = Server(app_state, bound)
    thread = threading.Thread(target=server.run)
    begin = time.perf_counter()
    thread.start()
    while app_state.thread.state == 'starting':
      time.sleep(0.1)
    warm_up_s = time.perf_counter() - begin
    url = f'http://127.0.0.1:{bound.getsockname()[1]}'
    generated()
    programs = 0
    for _ in range(args.rounds):
      rounds['generate'].append(_tokens_per_second(generated))
      with CompileCounter() as counter:
        rounds['served'].append(_tokens_per_second(
            lambda: asyncio.run(_ask_all(url, prompts, args, times))))
      programs += counter.programs
    server.end()
    thread.join()
  ratio = [ours / alone for ours, alone in zip(rounds['served'], rounds['generate'], strict=True)]
  print(json.dumps({
      **{name: [round(value, 1) for value in values] for name, values in rounds.items()},
      'ratio': round(statistics.median(ratio), 3), 'warm_up_s': round(warm_up_s, 1),
      'compiled': programs, **{name: _percentiles(values) for name, values in times.items()}}))


def _tokens_per_second(run) -> float:
  begin = time.perf_counter()
  tokens = run()
  return tokens / (time.perf_counter() - begin)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
  cuts = statistics.quantiles(values, n=100)
  return {'p50': round(cuts[49], 3), 'p99': round(cuts[98], 3)}


async def _ask_all(url: str, prompts: list[list[int]], args: argparse.Namespace,
                   times: dict[str, list[float]]) -> int:
  """Sends all prompts by so many clients; returns how many tokens came back."""
  left = iter(prompts)
  async with httpx2.AsyncClient(base_url=url, timeout=600) as http:
    async def client() -> int:
      return sum([await _ask(http, prompt, args.max_tokens, times) for prompt in left])
    return sum(await asyncio.gather(*(client() for _ in range(args.clients))))


async def _ask(http: httpx2.AsyncClient, prompt: list[int], max_tokens: int,
               times: dict[str, list[float]]) -> int:
  begin, last = time.perf_counter(), None
  fields = {'model': 'smollm2-135m', 'prompt': prompt, 'max_tokens': max_tokens, 'stream': True,
            'stream_options': {'include_usage': True}}
  async with http.stream('POST', '/v1/completions', json=fields) as response:
    async for line in response.aiter_lines():
      if not line.startswith('data: {'):
        continue
      now, data = time.perf_counter(), json.loads(line[6:])
      times['first_piece_s' if last is None else 'between_pieces_s'].append(
          now - (begin if last is None else last))
      last = now
  return data['usage']['completion_tokens']


if __name__ == '__main__':
  main()
