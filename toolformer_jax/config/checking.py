"""What is wrong with a configuration, in one line: unused names, wrong types, gin's own errors."""

import dataclasses
import difflib
import re
import tokenize
from collections.abc import Iterable
from typing import Any

from toolformer_jax.config.registry import RENAMED, RUN_MACROS, SETTINGS
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.models.adapter_config import ADAPTERS

# The text before `=` in gin's listings: `MACRO`, `scope/Settings.parameter`, or nothing where
# `gin.macro.value` is bound.
_BOUND = re.compile(r'^([\w/.]*) =', re.MULTILINE)
_UNKNOWN_SETTINGS = re.compile(r"No configurable matching (?:reference '@)?'?([\w.]+)")
_UNKNOWN_PARAMETER = re.compile(r"'([\w.]+)' doesn't have a parameter named '(\w+)'")
_UNKNOWN_FILE = re.compile(r'Unable to open file: (.+?)\. Searched')
_UNKNOWN_MACRO = re.compile(r"No bindings specified for '(\w+)/gin.macro'")
_DETAILS = re.compile(r' \(|: <')  # of a syntax error: its place, or a Python object
_PLACE = re.compile(r'^\s*In file "(.+?)", line (\d+)', re.MULTILINE)
_RECOVERY = re.compile(r'^ExperimentConfig\.recovery = @([\w/]*)FinetuneConfig\(\)', re.MULTILINE)
# Settings that are a value of another one.
_PARENTS = {'AugmentationConfig': 'MixtureConfig.augmentation',
            'DistillationConfig': 'FinetuneConfig.distillation',
            'PrivacyConfig': 'FinetuneConfig.privacy', 'QatConfig': 'FinetuneConfig.qat',
            **{adapter.__name__: 'FinetuneConfig.adapter' for adapter in ADAPTERS.values()}}
_OF_RECOVERY = ('DistillationConfig', 'QatConfig')
_EXAMPLES = {str: "a string such as 'runs/mine'", int: 'a whole number', bool: 'True or False',
             list: "a list of strings such as ['a', 'b']"}


def refuse_unused(bound: str, used: str, tools: Iterable[str]) -> None:
  """Checks that every binding has an effect.

  Args:
    bound: gin's listing of all bindings.
    used: gin's listing of those that were read.
    tools: the tools that have a ToolConfig.

  Raises:
    UserError: a binding was not read.
  """
  read = set(_BOUND.findall(used))
  # Within the scope of a recovery, a binding without scope is listed with it.
  read |= {name.removeprefix('recovery/') for name in read}
  if (found := _RECOVERY.search(bound)) and found[1] not in ('', 'recovery/'):
    raise UserError(f'ExperimentConfig.recovery = @{found[1]}FinetuneConfig(): write '
                    '@recovery/FinetuneConfig()')
  for binding in sorted(set(_BOUND.findall(bound)) - read):
    scope, _, name = (binding or 'macro.value').rpartition('/')
    settings = name.rpartition('.')[0].rpartition('.')[2]
    if settings == 'ToolConfig':
      raise unknown('tool', scope, tools)
    if parent := _PARENTS.get(settings):
      raise UserError(f'{name} has no effect without {parent} = @{settings}()' + (
          f', or recovery/{parent} in an experiment' if settings in _OF_RECOVERY else ''))
    if scope == 'recovery' and settings == 'FinetuneConfig':
      raise UserError(f'{binding} has no effect without ExperimentConfig.recovery = '
                      '@recovery/FinetuneConfig()')
    if settings in SETTINGS:
      raise UserError(f'{binding}: only ToolConfig can be bound for one tool; write {name}')
    if settings:
      raise unknown('settings', settings, SETTINGS)
    raise _unused_macro(binding, read)


def _unused_macro(macro: str, read: Iterable[str]) -> UserError:
  known = sorted({*RUN_MACROS, *(name for name in read if '/' not in name and '.' not in name)})
  near = difflib.get_close_matches(macro.upper(), known, n=1)
  hint = f'did you mean {near[0]}?' if near else f'macros in use are {", ".join(known)}'
  return UserError(f'the macro {macro} is used nowhere; {hint}')


def check_macro(name: str, value: Any) -> Any:
  """Returns the value of a run macro, as the command's option has it.

  Raises:
    UserError: it is of another type.
  """
  kind = RUN_MACROS[name]
  if kind is list and isinstance(value, list | tuple) and all(isinstance(x, str) for x in value):
    return list(value)
  if kind is list or type(value) is not kind:
    raise UserError(f'{name} must be {_EXAMPLES[kind]}, not {value!r}')
  return value


def explained(error: BaseException, source: str) -> UserError:
  """Returns an error of gin, or of what it has built, as one line with its place.

  `source` is the file that was read when it was raised; '' for bindings. Gin adds the place in an
  including file as lines of the message.
  """
  text = str(error)
  if place := _PLACE.search(text):
    source = f'{place[1]}, line {place[2]}'
  elif isinstance(error, SyntaxError) and source:
    source = f'{error.filename or source}, line {error.lineno}'  # the file may be an included one
  lines = [line for line in text.splitlines() if line.strip()] or ['']
  return UserError(f'{source}: '.removeprefix(': ') + _reason(error, lines[0].strip()))


def _reason(error: BaseException, message: str) -> str:
  """Returns what is wrong, from the first line of gin's message."""
  if match := _UNKNOWN_PARAMETER.search(message):
    settings = match[1].rpartition('.')[2]
    if settings not in SETTINGS:  # one of gin's own, such as `macro`
      return str(unknown('settings', match[1], SETTINGS))
    fields = [field.name for field in dataclasses.fields(SETTINGS[settings])]
    return str(unknown(f'parameter of {settings}', match[2], fields))
  if (match := _UNKNOWN_SETTINGS.search(message)) and match[1] in RENAMED:
    return f'{match[1]} is now called {RENAMED[match[1]]}'
  if match:
    return str(unknown('settings', match[1], SETTINGS))
  if match := _UNKNOWN_MACRO.search(message):
    return f'the macro {match[1]} has no value; write {match[1]} = ...'
  if match := _UNKNOWN_FILE.search(message):
    return f'there is no gin file {match[1]}'
  match error:
    case tokenize.TokenError():
      return 'not gin: a bracket or a string is not closed'
    case SyntaxError():
      return (f'not gin: {_DETAILS.split(message)[0].rstrip(".")}; a binding is NAME = VALUE, and '
              """strings need quotes, also within those of a shell: --gin.NAME="'VALUE'\"""")
    case TypeError() | AttributeError():
      return f'a value is of a wrong type: {message}'
    case RecursionError():
      return 'a value refers to itself, or is nested too deeply'
    case UserError() | ValueError() | ImportError() | OSError():
      return message
  return f'{type(error).__name__}: {message}'  # whatever an imported module raises
