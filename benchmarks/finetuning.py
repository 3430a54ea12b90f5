"""Fine-tuning: updates of all weights, or of adapters, by AdamW.

    python benchmarks/finetuning.py [--rows 8] [--tokens 256] [--dtype bfloat16] [--lora_rank 16]
    python benchmarks/finetuning.py --data runs/quickstart/calculator runs/posts
    python benchmarks/finetuning.py --model gpt2_1.5b --rows 8 --tokens 1024 --dtype bfloat16

Master weights and moments are float32 on both sides, gradients are clipped, and rates constant.
Without --data both get the same full rows. With it (an output folder of annotate, or a file of
texts) both see each text once: theirs in batches of --rows texts, each padded to its longest, as
the collators of transformers do; ours packed into rows of --tokens, in at least as many updates.
Tokens are those of the texts, operations what these need, at their own lengths.

A model of `models.presets` has random weights and tokens, and needs neither network nor torch's
files: on a GPU both sides run there. Peak memory is then the device's.
"""

import argparse
import pathlib
from collections.abc import Iterator

import harness
import jax
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.checkpoints.loading import ModelConfig, load_model
from toolformer_jax.models import flops
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder
from toolformer_jax.models.presets import preset
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.adapters import init_adapter
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.examples import annotated_example
from toolformer_jax.training.input_pipeline import put_batch
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import Example, PackedRows, pack
from toolformer_jax.training.sources import read_texts
from toolformer_jax.training.train_step import (
  abstract_train_state,
  init_train_state,
  make_train_step,
)

RATE = 1e-5


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', default='smollm2-135m',
                      help='smollm2-135m, or a name in models.presets, with random weights')
  parser.add_argument('--data', nargs='+', help='texts with calls; random tokens without')
  for name, default in (('rows', 8), ('tokens', 256), ('steps', 3), ('texts', 64),
                        ('lora_rank', 0), ('loss_tokens', 1024)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--remat', action='store_true', help='recompute activations, both sides')
  parser.add_argument('--dtype', default='float32', choices=('float32', 'bfloat16'))
  harness.main(title, parser, {'ours': ours, 'theirs': theirs})


def _adapter(rank: int) -> LoraConfig | None:
  return LoraConfig(rank=rank) if rank else None


def title(args: argparse.Namespace) -> str:
  """Returns what is measured."""
  what = f'LoRA of rank {args.lora_rank}' if args.lora_rank else 'all weights'
  sources = ', '.join(pathlib.Path(source).name for source in args.data or ())
  rows = (f'annotated texts of mixed length: {sources}' if args.data else
          f'batches of {args.rows} x {args.tokens} tokens')
  return f'Fine-tuning {args.model}, {what}, {args.dtype}, {rows}'


def read(args: argparse.Namespace, tokenizer: Tokenizer | None, vocab_size: int) -> list[list[int]]:
  """Returns the sequences to learn; of random ones as many as full rows."""
  if args.data is None:
    draw = np.random.default_rng(0)
    return draw.integers(0, vocab_size, (args.steps * args.rows, args.tokens)).tolist()
  texts = [annotated_example(text, tokenizer).token_ids
           for source in args.data for text in read_texts(source)]
  order = np.random.default_rng(0).permutation(len(texts))[:args.texts]
  return [[tokenizer.start_id, *texts[i]][:args.tokens] for i in order.tolist()]


def work(config: DecoderConfig, sequences: list[list[int]]) -> dict[str, float]:
  """Returns what is to be done, in tokens and operations."""
  return {'tokens': sum(map(len, sequences)),
          'flops': sum(flops.training_flops(config, len(sequence)) for sequence in sequences)}


def ours(args: argparse.Namespace) -> harness.Run:
  """Trains by the project's step."""
  settings = FinetuneConfig(learning_rate=RATE, warmup_fraction=0.0,
                            adapter=_adapter(args.lora_rank), loss_tokens=args.loss_tokens)
  collection = 'adapter' if args.lora_rank else 'params'
  model = _with_adapters(_our_model(args), settings)
  optimizer, decoder = make_optimizer(settings), model.decoder.clone(
      remat_policy='full' if args.remat else 'minimal')
  abstract = abstract_train_state(decoder, collection, optimizer, model.mesh)
  state = init_train_state(abstract, model.variables[collection], optimizer)
  frozen = {name: tree for name, tree in model.variables.items() if name != collection}
  step = make_train_step(decoder, collection, optimizer, abstract, settings)
  sequences = read(args, model.tokenizer, model.config.vocab_size)
  batches = list(_packed(args, sequences, model.tokenizer))
  del model
  def run(warm_up: bool) -> dict[str, float]:
    nonlocal state
    with jax.set_mesh(mesh):
      for batch in batches[:1] if warm_up else batches:
        state, metrics = step(frozen, state, put_batch(batch, np.arange(len(batch)), mesh))
    metrics['loss'].block_until_ready()
    return work(decoder.config, sequences)
  mesh = sharding.make_mesh()
  return run


def _packed(args: argparse.Namespace, sequences: list[list[int]], tokenizer: Tokenizer | None
            ) -> Iterator[PackedRows]:
  """Yields batches of rows; what is no target is the last token of each sequence."""
  if args.data:
    # The start token, which they have already, is added again.
    examples = [Example(sequence[1:], [1.0] * len(sequence[1:])) for sequence in sequences]
    rows = pack(examples, tokenizer, args.tokens, False)
    at_once = max(1, len(rows) // -(-len(sequences) // args.rows))
    updates = -(-len(rows) // at_once)
    rows = rows.pad(updates * at_once)
  else:
    tokens = np.array(sequences, np.int32)
    weights = np.ones(tokens.shape, np.float32)
    weights[:, -1] = 0.0
    positions = np.broadcast_to(np.arange(args.tokens, dtype=np.int32), tokens.shape)
    rows = PackedRows(tokens, np.roll(tokens, -1, 1), positions, np.ones_like(tokens), weights)
    updates = args.steps
  for first in range(updates):
    yield rows.take(slice(first, None, updates))


def _our_model(args: argparse.Namespace) -> LanguageModel:
  if args.model == 'smollm2-135m':
    return load_model(args.model, config=ModelConfig(dtype=args.dtype))
  mesh = sharding.make_mesh()
  decoder = make_decoder(mesh, preset(args.model).replace(dtype=args.dtype))
  def make():
    return sharding.unbox(decoder.init(jax.random.key(0), np.zeros((1, 2), np.int32)))
  where = sharding.state_shardings(abstract_variables(decoder), mesh)
  return LanguageModel(decoder, jax.jit(make, out_shardings=where)(), None, mesh)


def _with_adapters(model: LanguageModel, settings: FinetuneConfig) -> LanguageModel:
  if not settings.adapter:
    return model
  config = model.config.replace(adapter=settings.adapter)
  decoder = Decoder(config, kernel=model.decoder.kernel)
  where = sharding.state_shardings(abstract_variables(decoder)['adapter'], model.mesh)
  variables = {**model.variables, 'adapter': init_adapter(decoder, where, 0)}
  return LanguageModel(decoder, variables, model.tokenizer, model.mesh)


def theirs(args: argparse.Namespace) -> harness.Run:
  """Trains by transformers, torch and, for adapters, peft."""
  from transformers_training import Training
  training = Training(args.model, args.dtype, args.lora_rank, RATE, args.remat)
  sequences = read(args, training.tokenizer, training.config.vocab_size)
  batches = [sequences[i:i + args.rows] for i in range(0, len(sequences), args.rows)]
  config = training.config.replace(adapter=_adapter(args.lora_rank))
  def run(warm_up: bool) -> dict[str, float]:
    for batch in batches[:1] if warm_up else batches:
      training.step(batch)
    return work(config, sequences)
  return run


if __name__ == '__main__':
  main()
