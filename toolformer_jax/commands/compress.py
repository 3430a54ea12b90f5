"""Makes a model small: fewer layers, heads, channels and weights, and fewer bits of each weight.

CompressionConfig says what is removed; by default nothing is. An adapter, of --adapter or of a
fine-tuned checkpoint, is merged into the weights first. OUTPUT_DIR gets a Hugging Face
directory, which all commands take as a checkpoint, and compression.json. If weights have fewer bits
they are packed integers, which only this package reads; otherwise transformers reads the directory
too. Some settings choose by what the model does on calibration texts, those of --corpus. With
--zstd the weight files are compressed as well, without loss.

Examples:
  toolformer compress --checkpoint runs/tuned --corpus texts.jsonl --output_dir runs/small \\
      --gin.CompressionConfig.layers=28
  toolformer compress --checkpoint runs/tuned --corpus texts.jsonl --output_dir runs/small \\
      --gin.CompressionConfig.bits="'int4'"
"""

import argparse
import dataclasses

from toolformer_jax.checkpoints.zstd_files import check_zstandard
from toolformer_jax.commands import options
from toolformer_jax.compression.checks import check_compression
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.runtime.output_dir import check_is_new
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser)
  options.add_required(parser, 'output_dir', type=options.path, metavar='O',
                       help='the folder that is written; it must be new or empty')
  parser.add_argument('--corpus', metavar='F',
                      help='calibration texts, in a format that `annotate` reads')
  parser.add_argument('--zstd', action='store_true',
                      help='compress the weight files by Zstandard; they are decompressed each '
                           'time they are loaded')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  config = options.configuration(args)
  check_is_new(args.output_dir)
  config.compression.check_has_texts(bool(args.corpus))
  config.model.check_is_float('compressed')
  if args.zstd:
    check_zstandard()
  from toolformer_jax import api
  from toolformer_jax.checkpoints.pretrained import pretrained_config
  check_compression(config.compression, pretrained_config(args.checkpoint))
  texts = None
  if args.corpus and config.compression.needs_texts:
    texts_alone = dataclasses.replace(config.corpus, media=False)
    texts = (document.text for document in read_corpus(args.corpus, texts_alone))
  model = api.load_model(args.checkpoint, config=config.model, adapter=args.adapter)
  result = api.compress(model, texts, output_dir=args.output_dir, config=config.compression,
                        zstd=args.zstd)
  print_result(result.path)
