"""Trains a model on the texts with calls that annotate found.

OUTPUT_DIR becomes a checkpoint that needs nothing else: weights (the base of a LoRA included),
configuration and tokenizer. A run that was stopped goes on when the same command is started again.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.runtime import identity, load_model, versions

if TYPE_CHECKING:
  from toolformer_jax.annotation.records import AnnotatedDocument


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--data', required=True, type=pathlib.Path, metavar='D',
                      help='the output folder of annotate, or a file of texts with calls (.jsonl)')
  options.add_checkpoint(parser)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='O')
  parser.add_argument('--without_calls', action='store_true',
                      help='train on the same texts without their calls: the baseline "+ CC" of '
                           'the paper')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax.training.data import annotated_example
  from toolformer_jax.training.finetune import finetune
  config = options.configuration(args)
  records = list(read_annotated(args.data))
  if not records:
    raise UserError(f'{args.data} holds no text with a call: there is nothing to learn; '
                    'lower tau_f, or annotate more')
  if args.without_calls:
    records = [dataclasses.replace(record, calls=()) for record in records]
  model = load_model(args.checkpoint, config.model)
  examples = [annotated_example(record, model.tokenizer, config.syntax,
                                config.finetune.mask_results) for record in records]
  finetune(model=model, examples=examples, settings=config.finetune, output_dir=args.output_dir,
           configuration={'checkpoint': identity(args.checkpoint)}, versions=versions())
  config.save(args.output_dir)
  print(args.output_dir)


def read_annotated(data: pathlib.Path) -> Iterator['AnnotatedDocument']:
  """Yields the documents of C* in the output folder of an annotation run, or in a file.

  Raises:
    UserError: there is no such folder or file, the run has not ended, or a record is broken.
  """
  from toolformer_jax.annotation.folder import MERGED
  from toolformer_jax.annotation.records import AnnotatedDocument, read_records
  files = [data]
  if data.is_dir():
    merged = data / MERGED
    if not (merged / '.COMPLETED').exists():
      raise UserError(f'{data} is no output folder of annotate, or the run has not ended; '
                      'start `toolformer annotate` again to finish it')
    files = sorted(merged.glob('[0-9]*.jsonl'))
  for file in files:
    yield from read_records(file, AnnotatedDocument)
