"""Writes a model for transformers, which loads it with the same logits, or for llama.cpp.

OUTPUT_DIR gets weights, configurations, a tokenizer that begins texts with the start token as ours
does, and a model card. With --format gguf it gets the file model.gguf, which llama.cpp and what is
built on it run. The adapter of a model is merged into its weights; with --adapter_of it is written
alone, in PEFT's format, or a bottleneck in AdapterHub's.

Examples:
  toolformer export --checkpoint runs/tuned --output_dir runs/exported
  toolformer export --checkpoint runs/tuned --output_dir runs/gguf --format gguf --quantization q8_0
  toolformer export --checkpoint runs/tuned --output_dir runs/adapter --adapter_of org/base
"""

import argparse

from toolformer_jax.commands import options
from toolformer_jax.runtime.output_dir import check_is_new
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser)
  options.add_required(parser, 'output_dir', type=options.path, metavar='O',
                       help='the folder that is written; it must be new or empty')
  parser.add_argument('--adapter_of', metavar='BASE',
                      help='write only the adapter, which can be loaded onto BASE: the path, or '
                           'the name in transformers, of the model that was fine-tuned')
  parser.add_argument('--format', metavar='F', default='safetensors',
                      help='safetensors: a folder for transformers (default); gguf: a file for '
                           'llama.cpp')
  parser.add_argument('--quantization', metavar='Q',
                      help='of a GGUF file: f16 (default), bf16, q8_0, q4_0 or q4_1')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  config = options.configuration(args)
  check_is_new(args.output_dir)
  from toolformer_jax import api
  model = api.load_model(args.checkpoint, config=config.model, adapter=args.adapter)
  path = api.export(model, output_dir=args.output_dir, adapter_of=args.adapter_of,
                    format=args.format, quantization=args.quantization)
  print_result(path)
