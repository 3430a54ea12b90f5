"""Generation with tools, beside transformers' batched `generate` without tools.

    python benchmarks/generation.py [--exported D] [--prompts 64] [--slots 32]

Both continue the same word problems greedily until the model ends a text or it has 64 tokens, ours
besides those of calls; theirs in batches of as many rows as we have slots, sorted by length. Tokens
after a text's end and what a tool returns are not counted. With --exported the model is one that
calls: an export of SmolLM2-135M as it was fine-tuned. As it comes it makes no call.
"""

import argparse
import pathlib
import re
import sys

import harness

from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.calculator import Calculator
from toolformer_jax.tools.executor import Executor


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (('prompts', 64), ('slots', 32), ('max_tokens', 64)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--exported', type=pathlib.Path, metavar='D',
                      help='of toolformer export; default: SmolLM2-135M as it comes')
  harness.add_dtype(parser)
  def title(args):
    return (f'Generation with tools, {args.slots} slots' + ('' if args.exported else ', no calls')
            + harness.in_dtype(args))
  harness.main(title, parser, {'ours': ours, 'theirs': theirs})


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
  model = harness.load(args, str(args.exported or 'smollm2-135m'))
  prompts = read(model.tokenizer, args.prompts)
  how, engine = GenerationConfig(max_tokens=args.max_tokens), EngineConfig(args.slots)
  def run(warm_up: bool) -> dict[str, float]:
    with Executor([Calculator()], syntax=DEFAULT_SYNTAX) as executor:
      made = generate(
          model, prompts, config=how, engine_config=engine, executor=executor)
    print(f'{sum(len(text.calls) for text in made)} calls', file=sys.stderr)
    results = [model.tokenizer.encode(DEFAULT_SYNTAX.closing(call.call.result))
               for text in made for call in text.calls if call.failure is None]
    return {'tokens': sum(len(text.token_ids) for text in made) - sum(map(len, results))}
  return run


def theirs(args: argparse.Namespace) -> harness.Run:
  """Generates by transformers, without tools."""
  from transformers_inference import Transformers
  model = Transformers(harness.their_dtype(args.dtype), args.exported)
  tokenizer = model.tokenizer
  prompts = [[tokenizer.start_id, *prompt] for prompt in read(tokenizer, args.prompts)]
  def run(warm_up: bool) -> dict[str, float]:
    made = model.generate(prompts[:4] if warm_up else prompts, 4 if warm_up else args.max_tokens,
                          args.slots, tokenizer.end_ids)
    return {'tokens': sum(map(len, made))}
  return run


if __name__ == '__main__':
  main()
