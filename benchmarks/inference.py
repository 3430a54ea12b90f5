"""Scoring, prefilling and decoding with random weights: the programs of `toolformer plan`, run.

    python benchmarks/inference.py --model gptj_6b --step score --batch 64 --length 512
    python benchmarks/inference.py --model gptj_6b --step prefill --batch 64 --length 512
    python benchmarks/inference.py --model gptj_6b --step decode --batch 64 --length 1024

Neither weights nor network are needed: on a GPU both sides run there, and peak memory is the
device's. Ours are the programs and arguments of `planning/programs.py`: scores of all tokens of the
batch; keys and values of 8 documents behind a prompt of 512 tokens, with a log-probability at every
token; 4 more tokens of each text in a full cache. Theirs computes the same, by scaled dot product
attention. GB are what has to be read and written at least: beside the makers' figure they tell what
share of the memory's bandwidth is used.
"""

import argparse
from typing import Any, get_args

import harness
import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import configuration, sharding
from toolformer_jax.inference.generation import STEPS
from toolformer_jax.inference.prefill import TOGETHER
from toolformer_jax.models.cache import Cache
from toolformer_jax.planning.programs import PROMPT, Program, Step, program
from toolformer_jax.training.settings import FinetuneSettings

STEPS_OF_INFERENCE = tuple(step for step in get_args(Step) if step != 'train')


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='gpt2_124m', help='a file of configs/models')
  parser.add_argument('--step', default='score', choices=STEPS_OF_INFERENCE)
  for name, default in (('batch', 8), ('length', 256), ('runs', 8)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--dtype', default='bfloat16', choices=('float32', 'bfloat16'))
  def title(args):
    return f'{args.step} of {args.model}, {args.batch} x {args.length} tokens, {args.dtype}'
  harness.main(title, parser, {'ours': ours, 'theirs': theirs})


def planned(args: argparse.Namespace) -> Program:
  """Returns our program, which also says how much there is to do."""
  config = configuration.decoder_config(args.model).replace(dtype=args.dtype)
  return program(args.step, config, sharding.make_mesh(), args.batch, args.length,
                 FinetuneSettings())


def work(args: argparse.Namespace) -> dict[str, float]:
  """Returns what is to be done, in tokens, operations and traffic."""
  one = planned(args)
  return {'tokens': args.runs * one.tokens, 'GB': args.runs * one.traffic / 1e9,
          'flops': args.runs * one.useful_flops}


def ours(args: argparse.Namespace) -> harness.Run:
  """Runs what is planned."""
  one, amounts = planned(args), work(args)
  compiled = one.lower(sharding.make_mesh()).compile()
  arguments = jax.tree.map(_random, one.arguments)
  def run(warm_up: bool) -> dict[str, float]:
    nonlocal arguments
    for _ in range(1 if warm_up else args.runs):
      out = compiled(*_filled(arguments, args))
      jax.block_until_ready(out)
      arguments = _taken_back(arguments, out)
    return amounts | harness.device_memory()
  return run


def _random(x: Any) -> Any:
  """Returns an array of this shape: small numbers, or ids that every model has."""
  if not isinstance(x, jax.ShapeDtypeStruct):
    return x
  def make():
    if jnp.issubdtype(x.dtype, jnp.floating):
      return 0.02 * jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    return jnp.ones(x.shape, x.dtype)
  return jax.jit(make, out_shardings=x.sharding)()


def _filled(arguments: tuple, args: argparse.Namespace) -> tuple:
  """Returns the arguments with caches that hold as much as they may: prompts all, texts but 4."""
  def fill(x):
    if not isinstance(x, Cache):
      return x
    tokens = x.slots - STEPS * (args.step == 'decode')
    return x.with_length(jnp.full_like(x.length_B, tokens))
  return tuple(map(fill, arguments))


def _taken_back(arguments: tuple, out: Any) -> tuple:
  """Returns the arguments of the next run: the cache that was given away is in what came back."""
  if not isinstance(out, tuple):
    return arguments
  given = max(i for i, x in enumerate(arguments) if isinstance(x, Cache))
  return (*arguments[:given], out[1], *arguments[given + 1:])


def theirs(args: argparse.Namespace) -> harness.Run:
  """Computes the same by transformers."""
  from theirs import RandomModel, device_memory
  config = configuration.decoder_config(args.model)
  model, amounts = RandomModel(config, args.dtype), work(args)
  ids = np.random.default_rng(0).integers(0, config.vocab_size, (args.batch, args.length))
  step = {
      'score': lambda: model.score(ids),
      'prefill': model.prefilling(ids[:TOGETHER], PROMPT),
      'decode': model.decoding(ids[:, :-STEPS], STEPS)}[args.step]
  def run(warm_up: bool) -> dict[str, float]:
    for _ in range(1 if warm_up else args.runs):
      step()
    return amounts | device_memory()
  return run


if __name__ == '__main__':
  main()
