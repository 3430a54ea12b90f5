"""Writes a model as a Hugging Face directory, which transformers loads with the same logits.

OUTPUT_DIR holds config.json, model.safetensors and tokenizer.json; adapters of a fine-tuned model
are merged into its weights. With --adapter they are written alone, as PEFT loads them.
"""

import argparse
import pathlib

from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.commands import options
from toolformer_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='O')
  parser.add_argument('--adapter', metavar='BASE',
                      help='write the adapters alone, to be loaded onto BASE: the directory or the '
                           'name of the model that was fine-tuned, as transformers knows it')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax.checkpoints.huggingface import save_directory
  from toolformer_jax.checkpoints.peft import save_adapter
  if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
    raise UserError(f'{args.output_dir} is there already; choose another --output_dir')
  model = load_model(args.checkpoint, options.configuration(args).model)
  if args.adapter:
    save_adapter(args.output_dir, model, args.adapter)
  else:
    save_directory(args.output_dir, model)
  print(args.output_dir)
