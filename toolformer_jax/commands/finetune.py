"""Trains a model on the texts with calls that annotate found.

OUTPUT_DIR becomes a checkpoint that needs nothing else: weights (the base of a LoRA included),
configuration and tokenizer. A run that was stopped goes on when the same command is started again.
"""

import argparse
import dataclasses
import logging
import pathlib
from typing import TYPE_CHECKING

from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.commands import options
from toolformer_jax.data.content_hash import identity
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.cluster import join_cluster
from toolformer_jax.runtime.run_dir import software_versions

if TYPE_CHECKING:
  from toolformer_jax.config.loading import Configuration
  from toolformer_jax.tokenizer import Tokenizer
  from toolformer_jax.training.mixture import Text
  from toolformer_jax.training.packing import Example


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--data', required=True, nargs='+', metavar='D',
                      help='the output folder of annotate, a file of texts with calls (.jsonl), a '
                           'corpus (see annotate --help), or seqio:MODULE:NAME[@SPLIT]; several '
                           'are mixed')
  parser.add_argument('--dev', nargs='+', default=[], metavar='D',
                      help='such texts to choose the best checkpoint by; without it '
                           'MixtureConfig.dev_texts are held out')
  options.add_checkpoint(parser)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='O')
  parser.add_argument('--without_calls', action='store_true',
                      help='train on the same texts without their calls: the baseline "+ CC" of '
                           'the paper')
  parser.add_argument('--distributed', action='store_true',
                      help='train on the devices of all processes of jax.distributed: TPU pods, '
                           'Slurm, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax.training.finetune import finetune
  from toolformer_jax.training.mixture import hold_out, mixture
  config = options.configuration(args)
  texts, dev = _read(args.data, args.without_calls), _read(args.dev, args.without_calls)
  if not texts:
    raise UserError(f'{", ".join(args.data)} holds no text with a call: there is nothing to learn; '
                    'lower tau_f, or annotate more')
  if not args.dev:
    texts, dev = hold_out(texts, config.mixture)
  devices, first = _devices(args.distributed)
  model = load_model(args.checkpoint, config.model, devices)
  done = finetune(
      model=model, examples=_examples(mixture(texts, config.mixture), model.tokenizer, config),
      dev_examples=_examples(dev, model.tokenizer, config), settings=config.finetune,
      output_dir=args.output_dir, configuration={'checkpoint': identity(args.checkpoint)},
      versions=software_versions())
  if first:
    config.save(args.output_dir)
  if done is None:
    print('stopped; the same command goes on from the state that was saved')
  elif first:
    print(args.output_dir)


def _read(sources: list[str], without_calls: bool) -> list['Text']:
  from toolformer_jax.data.records import AnnotatedDocument
  from toolformer_jax.training.sources import read_texts
  texts = [text for source in sources for text in read_texts(source)]
  if not without_calls:
    return texts
  return [dataclasses.replace(text, calls=()) if isinstance(text, AnnotatedDocument) else text
          for text in texts]


def _devices(distributed: bool):
  """Returns the devices to train on, None for those of this process; and whether it is the first.

  The others say nothing.
  """
  if not distributed:
    return None, True
  index, _ = join_cluster()
  if index:
    logging.getLogger('toolformer_jax').setLevel(logging.WARNING)
  import jax
  return jax.devices(), index == 0


def _examples(texts: list['Text'], tokenizer: 'Tokenizer', config: 'Configuration'
              ) -> list['Example']:
  from toolformer_jax.training.data import TaskRow, annotated_example, task_example
  return [task_example(text, tokenizer) if isinstance(text, TaskRow) else
          annotated_example(text, tokenizer, config.syntax, config.finetune.mask_results)
          for text in texts]
