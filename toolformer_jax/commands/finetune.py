"""Trains a model on the texts with calls that annotate found.

OUTPUT_DIR becomes a checkpoint that needs nothing else: weights (the base of a LoRA included),
configuration and tokenizer. A run that was stopped continues when the same command is started
again.
"""

import argparse
import logging
import pathlib
from typing import TYPE_CHECKING

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.cluster import join_cluster
from toolformer_jax.runtime.standard_output import print_result

if TYPE_CHECKING:
  from collections.abc import Sequence

  import jax


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_required(
      parser, 'data', nargs='+', metavar='D',
      help='an output folder of annotate, a file of texts with calls (.jsonl), or a corpus (see '
           'annotate --help); several are mixed')
  parser.add_argument('--dev', nargs='+', default=[], metavar='D',
                      help='such texts to choose the best checkpoint by; without it '
                           'MixtureConfig.dev_texts are held out')
  options.add_checkpoint(parser)
  options.add_required(parser, 'output_dir', type=pathlib.Path, metavar='O')
  parser.add_argument('--without_calls', action='store_true',
                      help='train on the same texts without their calls: the baseline "+ CC" of '
                           'the paper')
  parser.add_argument('--distributed', action='store_true',
                      help='train on the devices of all processes of jax.distributed: TPU pods, '
                           'Slurm, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax import api
  config = options.configuration(args)
  texts = api.as_texts(args.data)
  dev = api.as_texts(args.dev) if args.dev else None
  if not texts:
    raise UserError(f'{", ".join(args.data)} holds no text with a call: there is nothing to learn; '
                    'lower tau_f, or annotate more')
  devices, first = _devices(args.distributed)
  model = api.load_model(args.checkpoint, config=config.model, devices=devices)
  result = api.finetune(
      model, texts, dev=dev, output_dir=args.output_dir, config=config.finetune,
      mixture=config.mixture, without_calls=args.without_calls, syntax=config.syntax)
  if first:
    config.save(args.output_dir)
  if not result.finished:
    print_result('stopped; the same command continues from the state that was saved')
  elif first:
    print_result(args.output_dir)


def _devices(distributed: bool) -> tuple['Sequence[jax.Device] | None', bool]:
  """Returns the devices to train on, None for those of this process; and whether it is the first.

  The other processes log warnings alone.
  """
  if not distributed:
    return None, True
  index, _ = join_cluster()
  if index:
    logging.getLogger('toolformer_jax').setLevel(logging.WARNING)
  import jax
  return jax.devices(), index == 0
