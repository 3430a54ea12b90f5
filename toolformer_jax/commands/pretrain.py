"""Trains a decoder with random weights on a corpus, and a tokenizer if none is given.

OUTPUT_DIR becomes a self-contained checkpoint, which every other command takes. If the run is
interrupted, the same command continues it. The settings begin with those of pretrain.gin: a model
of a few million parameters.

Examples:
  toolformer pretrain --corpus wikipedia-sample --output_dir runs/small
  toolformer pretrain --corpus my.jsonl --tokenizer smollm2-135m --output_dir runs/medium \\
      --gin.PretrainConfig.preset="'gpt2_124m'" --gin.FinetuneConfig.steps=20000
"""

import argparse

import toolformer_jax as tf_jax
from toolformer_jax.checkpoints.names import check_checkpoint
from toolformer_jax.commands import options
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_corpus(parser)
  parser.add_argument('--dev', nargs='+', action='extend', default=[], metavar='D',
                      help='texts whose loss is measured; by default MixtureConfig.dev_texts of '
                           'the corpus are held out')
  parser.add_argument('--tokenizer', metavar='C',
                      help='a model whose tokenizer is used; by default a byte-level BPE of '
                           'PretrainConfig.vocab_size tokens is trained on the corpus')
  options.add_required(parser, 'output_dir', type=options.path, metavar='O',
                       help='the folder of the run, which becomes a checkpoint')
  parser.add_argument('--distributed', action='store_true',
                      help='train on the devices of all processes of jax.distributed, as finetune '
                           'does')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  config = options.configuration(args, first=['pretrain.gin'])
  if args.tokenizer:
    check_checkpoint(args.tokenizer)
  devices, is_first = options.training_devices(args.distributed)
  from toolformer_jax.checkpoints.pretrained import pretrained_tokenizer
  result = tf_jax.pretrain(
      args.corpus, output_dir=args.output_dir, dev=args.dev or None,
      tokenizer=pretrained_tokenizer(args.tokenizer) if args.tokenizer else None,
      shape=config.pretrain, config=config.finetune, mixture=config.mixture,
      model_config=config.model, devices=devices, syntax=config.syntax,
      corpus_config=config.corpus, extra_files={'config.gin': config.text})
  if is_first or not result.finished:
    print_result(result.summary())
