"""Plain greedy decoding, one text or many side by side.

    python benchmarks/decoding.py --rows 1
    python benchmarks/decoding.py --rows 32

Short prompts, no tools, and no text ends before it has all of its tokens.
"""

import argparse
import copy
import dataclasses

import harness
from generation import read

from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.flops import forward_flops
from toolformer_jax.tokenizer import Tokenizer

_PROMPT = 16


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--rows', type=int, default=32)
  parser.add_argument('--tokens', type=int, default=96)
  harness.add_dtype(parser)
  def title(args):
    what = 'Single-stream decoding' if args.rows == 1 else f'Decoding of {args.rows} rows'
    return what + harness.in_dtype(args)
  harness.main(title, parser, {'ours': ours, 'theirs': theirs})


def prompts(tokenizer: Tokenizer, rows: int) -> list[list[int]]:
  """Returns the beginnings of word problems."""
  return [prompt[:_PROMPT] for prompt in read(tokenizer, rows)]


def work(config: DecoderConfig, args: argparse.Namespace) -> dict[str, float]:
  """Returns what is to be done, in tokens and operations."""
  flops = forward_flops(config, _PROMPT + args.tokens, logits=args.tokens)
  return {'tokens': args.rows * args.tokens, 'flops': args.rows * flops}


def ours(args: argparse.Namespace, checkpoint: str = 'smollm2-135m') -> harness.Run:
  """Decodes by the project's engine."""
  model = harness.load(args, checkpoint)
  endless = copy.copy(model.tokenizer)
  endless.end_ids = frozenset()
  model = dataclasses.replace(model, tokenizer=endless)
  config, engine = GenerationConfig(max_tokens=args.tokens), EngineConfig(args.rows)
  amounts = work(model.config, args)
  def run(warm_up: bool) -> dict[str, float]:
    generate(model, prompts(endless, args.rows), config=config,
             engine_config=engine)
    return amounts
  return run


def theirs(args: argparse.Namespace) -> harness.Run:
  """Decodes by transformers."""
  from transformers_inference import Transformers
  model = Transformers(harness.their_dtype(args.dtype))
  start, given = model.tokenizer.start_id, prompts(model.tokenizer, args.rows)
  given = [[start, *prompt] for prompt in given]
  amounts = work(model.config, args)
  def run(warm_up: bool) -> dict[str, float]:
    model.generate(given, 4 if warm_up else args.tokens, args.rows, ())
    return amounts
  return run


if __name__ == '__main__':
  main()
