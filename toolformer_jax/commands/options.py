"""Options that several commands share."""

import argparse
import datetime
from typing import TYPE_CHECKING

from toolformer_jax.errors import UserError

if TYPE_CHECKING:
  from toolformer_jax.configuration import Configuration


def add_configuration(parser: argparse.ArgumentParser) -> None:
  """Lets a command be configured: `--gin_file`, and `--gin.NAME=VALUE`, which `cli` collects."""
  group = parser.add_argument_group('configuration', description=(
      'Settings are named as in configs/; one is changed by --gin.NAME=VALUE, for instance\n'
      '--gin.AnnotationSettings.temperature=0.7 or --gin.calculator/ToolSettings.k=20. Texts need\n'
      'quotes of their own: --gin.ModelSettings.dtype="\'bfloat16\'".'))
  group.add_argument(
      '--gin_file', action='append', default=[], metavar='F',
      help='a gin file: a path, or one of the package such as quickstart.gin; may be repeated '
           '(default: paper.gin)')


def configuration(args: argparse.Namespace, *own: str) -> 'Configuration':
  """Returns the configuration of a command; `own` are bindings that its other options make.

  Raises:
    UserError: the configuration is wrong.
  """
  from toolformer_jax.configuration import load  # takes a second: it imports JAX
  return load(args.gin_file, [*args.bindings, *own])


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
  """Lets a command take a model."""
  parser.add_argument(
      '--checkpoint', required=True, metavar='C',
      help='the model: a .gguf file, an output folder of finetune, or a name such as smollm2-135m')


def add_tools(parser: argparse.ArgumentParser) -> None:
  """Lets a command take a list of tools."""
  parser.add_argument('--tools', required=True, metavar='A,B', type=lambda text: text.split(','),
                      help='tools, apart by commas: calculator, calendar, wikisearch')


def add_date(parser: argparse.ArgumentParser) -> None:
  """Lets a command take the date that the calendar tells."""
  parser.add_argument('--date', type=_date, metavar='YYYY-MM-DD',
                      default=datetime.date.today().isoformat(),
                      help='what the calendar tells (default: today)')


def _date(text: str) -> str:
  try:
    if datetime.date.fromisoformat(text).isoformat() == text:
      return text
  except ValueError:
    pass
  raise UserError(f'--date: {text!r} is not a date of the form 2023-01-30')
