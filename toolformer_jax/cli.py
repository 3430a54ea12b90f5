"""The command line: `toolformer COMMAND [options]`."""

import argparse
import importlib
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import toolformer_jax
from toolformer_jax.errors import UserError, unknown

_COMMANDS = {
    'fetch': 'bring a named model or corpus to the local cache and print its path',
    'call': 'run one tool and print its result',
    'score': 'write the log-probabilities of texts under a model',
    'generate': 'continue texts, with calls to tools on the way',
    'annotate': 'find the API calls that help a model to predict a corpus',
    'view': 'show an annotation run in a browser',
    'finetune': 'train a model on what annotate found',
    'evaluate': 'ask models the questions of benchmarks, with and without tools',
    'export': 'write a model as a Hugging Face directory',
    'plan': 'tell whether a step fits a TPU, and how fast it can be, without one',
}
_RESUMABLE = ('annotate', 'evaluate', 'finetune')
# What argparse shall take for an option: `-h`, `--name` and the `--` that ends the options.
_OPTION = re.compile(r'-h$|--([A-Za-z].*)?$', re.DOTALL)


class Parser(argparse.ArgumentParser):
  """A parser whose errors are like all others: one line, exit code 2."""

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}; see {self.prog} --help')


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command and returns the exit code: 0, or 2 after an error that the user can mend.

  `argv` are the arguments, by default those of the process. Results go to standard output,
  everything else to standard error.
  """
  argv = list(sys.argv[1:] if argv is None else argv)
  return guarded(lambda: _run(argv), resumable=bool(argv) and argv[0] in _RESUMABLE)


def guarded(work: Callable[[], None], resumable: bool) -> int:
  """Does `work` and returns the exit code; what people have to know is one line, no traceback."""
  try:
    work()
    sys.stdout.flush()
    return 0
  except SystemExit as done:  # argparse, after --help or --version
    return int(done.code or 0)
  except UserError as error:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    hint = ': the same command continues where this one stopped' if resumable else ''
    print(f'\ninterrupted{hint}', file=sys.stderr)
    return 130
  except BrokenPipeError:
    # Who read the output has enough of it; Python must not flush what is left.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except OSError as error:  # the disk is full, or a file may not be read
    hint = '; the same command continues where this one stopped' if resumable else ''
    reason = error.strerror or error
    print(f'error: {error.filename or "a file"}: {reason}{hint}', file=sys.stderr)
    return 2


def _run(argv: list[str]) -> None:
  """Reads the command and its options, and carries it out."""
  if not argv or argv[0].startswith('-'):
    _overview().parse_args(argv or ['--help'])
    return
  name, *rest = argv
  if name not in _COMMANDS:
    raise unknown('command', name, _COMMANDS)
  command = importlib.import_module(f'toolformer_jax.commands.{name}')
  parser = Parser(prog=f'toolformer {name}', description=command.__doc__, allow_abbrev=False,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  command.add_arguments(parser)
  args = parse(parser, rest)
  log_to_stderr()
  command.run(args)


def _overview() -> argparse.ArgumentParser:
  """Returns the parser of `toolformer` without a command, which only gives information."""
  width = max(map(len, _COMMANDS))
  commands = '\n'.join(f'  {name:{width}}  {does}' for name, does in _COMMANDS.items())
  parser = Parser(
      prog='toolformer', usage='toolformer COMMAND ...', allow_abbrev=False,
      description=f'{toolformer_jax.__doc__}\n\ncommands:\n{commands}',
      epilog='`toolformer COMMAND --help` tells more about one.',
      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--version', action='version', version=toolformer_jax.__version__)
  return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
  """Returns the options of a command; `bindings` are those of the form `--gin.NAME=VALUE`."""
  bindings = [arg.removeprefix('--gin.') for arg in argv if arg.startswith('--gin.')]
  others = [arg for arg in argv if not arg.startswith('--gin.')]
  args = parser.parse_intermixed_args(_with_values_joined(others))
  if bindings and not hasattr(args, 'gin_file'):
    parser.error(f'there is nothing to configure with --gin.{bindings[0]}')
  args.bindings = bindings
  return args


def _with_values_joined(argv: Sequence[str]) -> list[str]:
  """Returns the arguments in a form in which argparse takes `-3+5` for a value, not for an option.

  The value of an option is joined to it (`--mesh=-1,8,1`); others come last, after `--`.
  """
  joined, positional = [], []
  for i, arg in enumerate(argv):
    if not arg.startswith('-') or _OPTION.match(arg):
      joined.append(arg)
    elif i and _OPTION.match(argv[i - 1]) and '=' not in argv[i - 1] and len(argv[i - 1]) > 2:
      joined[-1] += f'={arg}'
    else:
      positional.append(arg)
  return [*joined, '--', *positional] if positional and '--' not in joined else joined + positional


def log_to_stderr() -> None:
  """Shows what our own modules log, without a prefix: it is written for the user."""
  logger = logging.getLogger('toolformer_jax')
  for handler in list(logger.handlers):
    logger.removeHandler(handler)
  logger.addHandler(logging.StreamHandler(sys.stderr))
  logger.setLevel(logging.INFO)
  logger.propagate = False
