"""The commands and their parsers."""

import argparse
import importlib
from typing import NoReturn

from toolformer_jax.errors import UserError, unknown

COMMANDS = {
  'fetch': 'download a model or corpus by name to the local cache and print its path',
  'call': 'run one tool and print its result',
  'score': 'compute the log-probabilities of texts under a model',
  'generate': 'continue texts and call tools',
  'annotate': 'annotate a corpus with API calls that help a model to predict it',
  'view': 'show an annotation run in a browser',
  'pretrain': 'train a model from nothing on a corpus',
  'finetune': 'train a model on the annotated texts',
  'evaluate': 'evaluate models on benchmarks, with and without tools',
  'experiment': 'annotate, fine-tune and evaluate: one experiment, or a grid of them',
  'serve': 'serve a model to clients of the OpenAI protocol, tools included',
  'compress': 'make a model small: fewer layers, heads, channels, weights, bits',
  'export': 'write a model for transformers or llama.cpp',
  'plan': 'compile a step for a TPU: does it fit, and how fast can it be; needs no TPU',
  'doctor': 'show what works on this machine, and what is missing for what',
  'completion': 'print a script that completes commands and options in a shell',
}
_EXAMPLES = '\n\nExamples:\n'


class Parser(argparse.ArgumentParser):
  """An ArgumentParser that raises UserError for wrong options."""

  def error(self, message: str) -> NoReturn:
    """Raises UserError instead of exiting."""
    raise UserError(f'{message}; see {self.prog} --help')


def command_parser(name: str) -> Parser:
  """Returns the parser of a command. Its help is the docstring of the module of the command.

  Raises:
    UserError: there is no such command.
  """
  if name not in COMMANDS:
    raise unknown('command', name, COMMANDS)
  command = importlib.import_module(f'toolformer_jax.commands.{name}')
  description, _, examples = (command.__doc__ or '').partition(_EXAMPLES)
  parser = Parser(prog=f'toolformer {name}', description=description, allow_abbrev=False,
                  epilog=f'examples:\n{examples.rstrip()}' if examples else None,
                  formatter_class=argparse.RawDescriptionHelpFormatter)
  command.add_arguments(parser)
  return parser


def actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
  """Returns the options and positional arguments of a parser that its help shows.

  argparse has no public list of them; argcomplete and shtab read the same attribute.
  """
  return [action for action in parser._actions if action.help != argparse.SUPPRESS]
