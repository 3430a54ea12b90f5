"""Writes a model as a Hugging Face directory, which transformers loads with the same logits.

OUTPUT_DIR holds config.json, model.safetensors and tokenizer.json; adapters of a fine-tuned model
are merged into its weights.
"""

import argparse
import pathlib

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.runtime import load_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='O')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax.checkpoints.huggingface import save_directory
  if args.output_dir.exists() and (not args.output_dir.is_dir() or any(args.output_dir.iterdir())):
    raise UserError(f'{args.output_dir} is there already; choose another --output_dir')
  save_directory(args.output_dir, load_model(args.checkpoint, options.configuration(args).model))
  print(args.output_dir)
