"""Options that several commands share."""

import argparse
import contextlib
import datetime
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from toolformer_jax.data.dates import parse_iso_date
from toolformer_jax.errors import UserError
from toolformer_jax.tools.call_store import CallStore

if TYPE_CHECKING:
  from toolformer_jax.config.loading import RunConfig


def add_configuration(parser: argparse.ArgumentParser) -> None:
  """Lets a command be configured: `--gin_file`, and `--gin.NAME=VALUE`, which `cli` collects."""
  group = parser.add_argument_group('configuration', description=(
      'Settings are named as in configs/; one is changed by --gin.NAME=VALUE, for instance\n'
      '--gin.AnnotationConfig.temperature=0.7 or --gin.calculator/ToolConfig.k=20. Texts need\n'
      'quotes of their own: --gin.ModelConfig.dtype="\'bfloat16\'".'))
  group.add_argument(
      '--gin_file', action='append', default=[], metavar='F',
      help='a gin file: a path, or one of the package such as quickstart.gin; may be repeated '
           '(default: paper.gin)')


def configuration(args: argparse.Namespace, *own: str) -> 'RunConfig':
  """Returns the configuration of a command; `own` are bindings that its other options make.

  Raises:
    UserError: the configuration is wrong.
  """
  from toolformer_jax.config.loading import load  # takes a second: it imports JAX
  return load(args.gin_file, [*args.bindings, *own])


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
  """Lets a command take a model."""
  parser.add_argument(
      '--checkpoint', required=True, metavar='C',
      help='the model: a .gguf file, an output folder of finetune, or a name such as smollm2-135m')


def add_tools(parser: argparse.ArgumentParser) -> None:
  """Lets a command take a list of tools."""
  parser.add_argument('--tools', required=True, metavar='A,B', type=lambda text: text.split(','),
                      help='tools, apart by commas: calculator, calendar, mt, qa, wikisearch, or '
                           'a tool of CustomToolsConfig')


def add_call_store(parser: argparse.ArgumentParser) -> None:
  """Lets a command keep what tools answer, or take it from an earlier run."""
  group = parser.add_mutually_exclusive_group()
  group.add_argument('--record', type=pathlib.Path, metavar='F',
                     help='keep the answers of all tools in the file F, and do not ask again for '
                          'those that are there')
  group.add_argument('--replay', type=pathlib.Path, metavar='F',
                     help='take all answers from F: no tool is needed')


@contextlib.contextmanager
def call_store(args: argparse.Namespace) -> Iterator[CallStore | None]:
  """Opens the store of `--record` or `--replay`, if one was asked for."""
  path = args.record or args.replay
  if path is None:
    yield None
    return
  with contextlib.closing(CallStore(path, replay=args.replay is not None)) as store:
    yield store


def add_date(parser: argparse.ArgumentParser) -> None:
  """Lets a command take the date that the calendar tells."""
  parser.add_argument('--date', type=_date, metavar='YYYY-MM-DD',
                      default=datetime.date.today().isoformat(),
                      help='what the calendar tells (default: today)')


def _date(text: str) -> str:
  if parse_iso_date(text) is None:
    raise UserError(f'--date: {text!r} is not a date of the form 2023-01-30')
  return text
