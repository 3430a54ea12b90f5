"""Generation with several adapters in a batch, beside one adapter, one merged, and none.

    python benchmarks/adapter_stack.py [--rows 32] [--tokens 64] [--adapters 4] [--rank 16]

All continue the same prompts greedily for the same number of tokens. `base` has no adapter,
`merged` one that is in the weights, `alone` one beside them, and in `stack` the rows use `adapters`
adapters in turn. The adapters are random, in all modules.
"""

import argparse
import dataclasses

import generation
import harness
import jax
import numpy as np

from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.adapter_stack import adapter_names, stack_adapters
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.training.adapters import add_adapter
from toolformer_jax.training.config import FinetuneConfig


def main() -> None:
  """Reads the options and runs the sides in turn."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (('rows', 32), ('tokens', 64), ('adapters', 4), ('rank', 16)):
    parser.add_argument(f'--{name}', type=int, default=default)
  sides = {'stack': stack, 'alone': alone, 'merged': merged, 'base': base}
  harness.main(lambda args: f'{args.rows} rows with {args.adapters} adapters of rank {args.rank}',
               parser, sides, pairs=[(side, 'base') for side in sides if side != 'base'])


def tuned(model: LanguageModel, rank: int, seed: int) -> LanguageModel:
  """Returns the model with a random adapter."""
  model = add_adapter(model, FinetuneConfig(adapter=LoraConfig(rank=rank)))
  rng = np.random.default_rng(seed)
  weights = jax.tree.map(
      lambda x: jax.device_put(rng.normal(0, 0.01, x.shape).astype(np.float32), x.sharding),
      model.variables[ADAPTER])
  return dataclasses.replace(model, variables=model.variables | {ADAPTER: weights})


def base(args: argparse.Namespace) -> harness.Run:
  """Generates without adapter."""
  return _run(args, load_model('smollm2-135m'))


def merged(args: argparse.Namespace) -> harness.Run:
  """Generates with an adapter that is merged into the weights."""
  return _run(args, merge_adapter(tuned(load_model('smollm2-135m'), args.rank, 0)))


def alone(args: argparse.Namespace) -> harness.Run:
  """Generates with one adapter for all rows."""
  return _run(args, tuned(load_model('smollm2-135m'), args.rank, 0))


def stack(args: argparse.Namespace) -> harness.Run:
  """Generates with several adapters, which the rows use in turn."""
  model = load_model('smollm2-135m')
  return _run(args, stack_adapters(
      model, {f'adapter {i}': tuned(model, args.rank, i) for i in range(args.adapters)}))


def _run(args: argparse.Namespace, model: LanguageModel) -> harness.Run:
  prompts, names = generation.read(model.tokenizer, args.rows), adapter_names(model)
  adapters = [names[i % len(names)] for i in range(len(prompts))] if names else None
  how = GenerationConfig(max_tokens=args.tokens, min_tokens=args.tokens)
  def run(warm_up: bool) -> dict[str, float]:
    made = generate(model, prompts, config=how, engine_config=EngineConfig(args.rows),
                    adapters=adapters)
    return {'tokens': sum(len(text.token_ids) for text in made)}
  return run


if __name__ == '__main__':
  main()
