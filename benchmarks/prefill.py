"""Prefill: keys and values of long prompts, one after the other.

    python benchmarks/prefill.py [--tokens 1024] [--prompts 4]
"""

import argparse
import itertools

import harness

from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.inference.shared_prefix import prefill_prompt
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.flops import forward_flops
from toolformer_jax.tokenizer import Tokenizer


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--tokens', type=int, default=1024)
  parser.add_argument('--prompts', type=int, default=4)
  harness.add_dtype(parser)
  def title(args):
    return f'Prefill of {args.tokens} tokens' + (harness.in_dtype(args) or ', float32')
  harness.main(title, parser, {'ours': ours, 'theirs': theirs})


def read(tokenizer: Tokenizer, args: argparse.Namespace) -> list[list[int]]:
  """Returns prompts of word problems, one after the other."""
  texts = (document.text for document in read_corpus('word-problems'))
  ids = itertools.chain.from_iterable(map(tokenizer.encode, texts))
  return [list(itertools.islice(ids, args.tokens - 1)) for _ in range(args.prompts)]


def work(config: DecoderConfig, args: argparse.Namespace) -> dict[str, float]:
  """Returns what is to be done, in tokens and operations."""
  flops = forward_flops(config, args.tokens)
  return {'tokens': args.prompts * args.tokens, 'flops': args.prompts * flops}


def ours(args: argparse.Namespace, checkpoint: str = 'smollm2-135m') -> harness.Run:
  """Computes them by the project's engine."""
  model = harness.load(args, checkpoint)
  prompts = read(model.tokenizer, args)
  amounts = work(model.config, args)
  def run(warm_up: bool) -> dict[str, float]:
    for prompt in prompts[:1] if warm_up else prompts:
      prefill_prompt(model, prompt).keys.block_until_ready()
    return amounts
  return run


def theirs(args: argparse.Namespace) -> harness.Run:
  """Computes them by transformers."""
  from transformers_inference import Transformers
  model = Transformers(harness.their_dtype(args.dtype))
  start = model.tokenizer.start_id
  prompts = [[start, *prompt] for prompt in read(model.tokenizer, args)]
  amounts = work(model.config, args)
  def run(warm_up: bool) -> dict[str, float]:
    for prompt in prompts[:1] if warm_up else prompts:
      model.prefill(prompt)
    return amounts
  return run


if __name__ == '__main__':
  main()
