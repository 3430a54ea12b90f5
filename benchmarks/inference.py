"""Scoring, prefilling and decoding with random weights: the programs of `toolformer plan`, run.

    python benchmarks/inference.py --model gptj_6b --step score --batch 64 --length 512
    python benchmarks/inference.py --model gptj_6b --step prefill --batch 64 --length 512
    python benchmarks/inference.py --model gptj_6b --step decode --batch 64 --length 1024

Neither weights nor network are needed: on a GPU both sides run there, and peak memory is the
device's. Ours are the programs and arguments of `planning/programs.py`: scores of all tokens of the
batch; keys and values of 8 documents behind a prompt of 512 tokens, with a log-probability at every
token; 4 more tokens of each text in a full cache. Theirs computes the same by transformers' default
cache and attention (of GPT-J that is no fused one), and drops the documents' keys and values, which
ours puts into a store of --batch rows. GB are what has to be read and written at least: beside the
makers' figure they tell what share of the memory's bandwidth is used. Models with windows (Gemma 3)
are left out: theirs cannot take tokens back.
"""

import argparse
from typing import Any, get_args

import harness
import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.inference.decoding import STEPS
from toolformer_jax.inference.shared_prefix import DOCUMENT_ROWS
from toolformer_jax.models.kv_cache import KVCache
from toolformer_jax.models.presets import preset
from toolformer_jax.planning.programs import PROMPT, Program, Step, program
from toolformer_jax.training.config import FinetuneConfig

STEPS_OF_INFERENCE = tuple(step for step in get_args(Step) if step != 'train')


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='gpt2_124m', help='a name in models.presets')
  parser.add_argument('--step', default='score', choices=STEPS_OF_INFERENCE)
  for name, default in (('batch', 8), ('length', 256), ('runs', 8)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--dtype', default='bfloat16', choices=('float32', 'bfloat16'))
  def title(args):
    return f'{args.step} of {args.model}, {args.batch} x {args.length} tokens, {args.dtype}'
  harness.main(title, parser, {'ours': ours, 'theirs': theirs})


def planned(args: argparse.Namespace) -> Program:
  """Returns our program, which also says how much there is to do."""
  config = preset(args.model).replace(dtype=args.dtype)
  needed = args.length + PROMPT * (args.step == 'prefill')
  if needed > config.max_positions or config.sliding_window:
    raise SystemExit(f'{args.model} has {config.max_positions} positions, not {needed}, or windows')
  return program(args.step, config, sharding.make_mesh(), args.batch, args.length,
                 FinetuneConfig())


def work(args: argparse.Namespace, one: Program) -> dict[str, float]:
  """Returns what is to be done, in tokens, operations and traffic."""
  return {'tokens': args.runs * one.tokens, 'GB': args.runs * one.traffic / 1e9,
          'flops': args.runs * one.useful_flops}


def ours(args: argparse.Namespace) -> harness.Run:
  """Runs what is planned."""
  one = planned(args)
  amounts = work(args, one)
  compiled = one.lower(sharding.make_mesh()).compile()
  arguments = _with_ids(jax.tree.map(_random, one.arguments), args)
  def run(warm_up: bool) -> dict[str, float]:
    nonlocal arguments
    for _ in range(1 if warm_up else args.runs):
      out = compiled(*_filled(arguments, args))
      jax.block_until_ready(out)
      arguments = _taken_back(arguments, out)
    return amounts
  return run


def _random(x: Any) -> Any:
  """Returns an array of this shape: small random numbers, or ones."""
  if not isinstance(x, jax.ShapeDtypeStruct):
    return x
  def make():
    if jnp.issubdtype(x.dtype, jnp.floating):
      return 0.02 * jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    return jnp.ones(x.shape, x.dtype)
  return jax.jit(make, out_shardings=x.sharding)()


def _with_ids(arguments: tuple, args: argparse.Namespace) -> tuple:
  """Returns the arguments with the ids that theirs gets, and their places."""
  ids_BT = ids(args)
  places_BT = np.broadcast_to(np.arange(args.length, dtype=np.int32), ids_BT.shape)
  rows = {'score': (ids_BT, places_BT, np.ones_like(ids_BT), places_BT, ids_BT),
          'prefill': (0, ids_BT[:DOCUMENT_ROWS], places_BT[:DOCUMENT_ROWS], 0)}.get(args.step, ())
  def put(new, x):
    return jax.device_put(new, x.sharding) if isinstance(x, jax.Array) else x
  first = len(arguments) - len(rows)
  return (*arguments[:first], *map(put, rows, arguments[first:]))


def ids(args: argparse.Namespace) -> np.ndarray:
  """Returns the tokens of the batch."""
  size = preset(args.model).vocab_size
  return np.random.default_rng(0).integers(0, size, (args.batch, args.length), np.int32)


def _filled(arguments: tuple, args: argparse.Namespace) -> tuple:
  """Returns the arguments with caches that hold as much as they may: prompts all, texts but 4."""
  def fill(x):
    if not isinstance(x, KVCache):
      return x
    tokens = x.slots - STEPS * (args.step == 'decode')
    return x.with_length(jnp.full_like(x.length_B, tokens))
  return tuple(map(fill, arguments))


def _taken_back(arguments: tuple, out: Any) -> tuple:
  """Returns the arguments of the next run: the cache that was given away is in what came back."""
  if not isinstance(out, tuple):
    return arguments
  given = max(i for i, x in enumerate(arguments) if isinstance(x, KVCache))
  return (*arguments[:given], out[1], *arguments[given + 1:])


def theirs(args: argparse.Namespace) -> harness.Run:
  """Computes the same by transformers."""
  from transformers_inference import RandomModel
  jax.config.update('jax_platforms', 'cpu')  # the GPU is torch's
  amounts, ids_BT = work(args, planned(args)), ids(args)
  model = RandomModel(preset(args.model), args.dtype)
  step = {
      'score': lambda: model.scoring(ids_BT),
      'prefill': lambda: model.prefilling(ids_BT[:DOCUMENT_ROWS], PROMPT),
      'decode': lambda: model.decoding(ids_BT[:, :-STEPS], STEPS)}[args.step]()
  def run(warm_up: bool) -> dict[str, float]:
    for _ in range(1 if warm_up else args.runs):
      step()
    return amounts
  return run


if __name__ == '__main__':
  main()
