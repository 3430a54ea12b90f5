"""Generation with tools, and plain decoding beside transformers' batched `generate`.

    python benchmarks/generation.py [--prompts 64] [--slots 32] [--tools calculator]
    python benchmarks/generation.py --prompts 1 --slots 1 --tools ''       (single stream)

Theirs continues the same prompts greedily without tools, in batches of as many rows as we have
slots, by as many tokens. What a tool returns is not counted as generated.
"""

import argparse
import re

import harness

from toolformer_jax import configuration, fetch
from toolformer_jax.annotation.corpus import read_corpus
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.inference.continuation import GenerationSettings
from toolformer_jax.inference.generation import generate
from toolformer_jax.runtime import load_model
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.toolbox import build_tools, call_runner
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.executor import Executor


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (('prompts', 64), ('slots', 32), ('max_tokens', 64)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--tools', default='calculator', help="'' for plain decoding")
  harness.main('Generation', parser, {'ours': ours, 'theirs': theirs})


def read(tokenizer: Tokenizer, count: int) -> list[list[int]]:
  """Returns word problems up to the first number of their solution."""
  prompts = []
  for document in read_corpus('word-problems'):
    question, mark, solution = document.text.rpartition('? ')
    begin = re.search(r' [$£€]?\d', solution)
    if mark and begin:
      prompts.append(tokenizer.encode(f'{question}{mark}{solution[:begin.start()]}'))
    if len(prompts) == count:
      break
  return prompts


def ours(args: argparse.Namespace) -> harness.Run:
  """Generates by the project's engine."""
  config = configuration.load([])
  model = load_model('smollm2-135m', config.model)
  tools = build_tools(args.tools.split(','), config.search) if args.tools else []
  prompts = read(model.tokenizer, args.prompts)
  settings = GenerationSettings(max_tokens=args.max_tokens, slots=args.slots)
  def run(warm_up: bool) -> dict[str, float]:
    with Executor(tools, syntax=DEFAULT_SYNTAX) as executor:
      made = generate(
          model, prompts, settings=settings, tool_names=[tool.name for tool in tools],
          run_call=call_runner(executor, [Context() for _ in prompts]))
    results = [model.tokenizer.encode(DEFAULT_SYNTAX.closing(call.call.result))
               for text in made for call in text.calls if call.failure is None]
    return {'tokens': sum(len(text.tokens) for text in made) - sum(map(len, results))}
  return run


def theirs(args: argparse.Namespace) -> harness.Run:
  """Generates by transformers, without tools."""
  from theirs import Transformers
  tokenizer = GgufFile(fetch.fetch('smollm2-135m')).tokenizer()
  model = Transformers(tokenizer, 'float32')
  prompts = [[tokenizer.start_id, *prompt] for prompt in read(tokenizer, args.prompts)]
  def run(warm_up: bool) -> dict[str, float]:
    return {'tokens': model.generate(prompts[:4] if warm_up else prompts,
                                     4 if warm_up else args.max_tokens, args.slots)}
  return run


if __name__ == '__main__':
  main()
