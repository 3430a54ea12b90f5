"""The command line: `toolformer COMMAND [options]`."""

import argparse
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence

import toolformer_jax
from toolformer_jax.commands.parsers import COMMANDS, Parser, command_parser
from toolformer_jax.errors import UserError
from toolformer_jax.runtime import libtpu
from toolformer_jax.runtime.paths import reason, storage_errors
from toolformer_jax.runtime.signals import Terminated, signals_interrupt
from toolformer_jax.runtime.standard_output import reserve_for_results

_RESUMABLE = ('annotate', 'evaluate', 'experiment', 'finetune')
_OPTION = re.compile(r'-h|--[A-Za-z].*', re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command and returns the exit code: 0, or 2 after an error that the user can fix.

  Results are written to standard output, everything else to standard error.

  Args:
    argv: the arguments; by default those of the process.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  return guarded(lambda: _run(argv), resumable=bool(argv) and argv[0] in _RESUMABLE)


def guarded(work: Callable[[], None], resumable: bool) -> int:
  """Runs `work` and returns the exit code. A UserError is printed as one line, without a traceback.

  Args:
    work: the function to run.
    resumable: whether `work` continues where it stopped if it is run again, which is printed after
      an interruption.
  """
  libtpu.set_environment()
  try:
    with signals_interrupt():
      work()
    if sys.stdout:  # None if the descriptor was closed before the start
      sys.stdout.flush()
    return 0
  except SystemExit as done:  # raised by argparse after --help or --version
    return int(done.code or 0)
  except UserError as error:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    hint = ': the same command continues where this one stopped' if resumable else ''
    print(f'\ninterrupted{hint}', file=sys.stderr)
    return 130
  except Terminated:
    hint = ': the same command continues where this one stopped' if resumable else ''
    print(f'terminated{hint}', file=sys.stderr)
    return 143
  except BrokenPipeError:
    # The reader has closed the pipe. Python must not flush the rest at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except OSError as error:  # for instance a full disk, or a file without permission
    hint = '; the same command continues where this one stopped' if resumable else ''
    print(f'error: {error.filename or "a file"}: {reason(error)}{hint}', file=sys.stderr)
    return 2
  except storage_errors() as error:
    hint = '; the same command continues where this one stopped' if resumable else ''
    print(f'error: a bucket cannot be used: {reason(error)}{hint}', file=sys.stderr)
    return 2


def _run(argv: list[str]) -> None:
  """Parses the command line and runs the command."""
  if not argv or argv[0].startswith('-'):
    _overview().parse_args(argv or ['--help'])
    return
  name, *rest = argv
  args = parse(command_parser(name), rest)
  command = importlib.import_module(f'toolformer_jax.commands.{name}')
  log_to_stderr()
  with reserve_for_results():
    command.run(args)


def _overview() -> argparse.ArgumentParser:
  """Returns the parser of `toolformer` without a command, with --help and --version."""
  width = max(map(len, COMMANDS))
  commands = '\n'.join(f'  {name:{width}}  {does}' for name, does in COMMANDS.items())
  parser = Parser(
      prog='toolformer', usage='toolformer COMMAND ...', allow_abbrev=False,
      description=f'{toolformer_jax.__doc__}\n\ncommands:\n{commands}',
      epilog='`toolformer COMMAND --help` describes the options of a command.',
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--version', action='version', version=toolformer_jax.__version__)
  return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
  """Returns the parsed options of a command.

  The attribute `bindings` is the list of NAME=VALUE in all `--gin.NAME=VALUE`.
  """
  bindings = [arg.removeprefix('--gin.') for arg in argv if arg.startswith('--gin.')]
  others = [arg for arg in argv if not arg.startswith('--gin.')]
  args = parser.parse_intermixed_args(_protect_negative_values(others))
  if bindings and not hasattr(args, 'gin_file'):
    parser.error(f'this command has no settings, so --gin.{bindings[0]} is not allowed')
  args.bindings = bindings
  return args


def _protect_negative_values(argv: Sequence[str]) -> list[str]:
  """Rewrites arguments so that argparse does not take values like `-1,8,1` or `-3+5` for options.

  A value is joined to the option before it (`--mesh=-1,8,1`). If there is none, it is positional
  and is moved to the end, after `--`.
  """
  end = argv.index('--') if '--' in argv else len(argv)
  options, positional = [], []
  for before, arg in zip(['', *argv], argv[:end], strict=False):
    if not arg.startswith('-') or _OPTION.fullmatch(arg):
      options.append(arg)
    elif before.startswith('--') and _OPTION.fullmatch(before) and '=' not in before:
      options[-1] += f'={arg}'
    else:
      positional.append(arg)
  positional += argv[end + 1:]
  return [*options, '--', *positional] if positional else options


def log_to_stderr() -> None:
  """Writes the log messages of this package to standard error, without a prefix."""
  logger = logging.getLogger('toolformer_jax')
  for handler in list(logger.handlers):
    logger.removeHandler(handler)
  logger.addHandler(logging.StreamHandler(sys.stderr))
  logger.setLevel(logging.INFO)
  logger.propagate = False
