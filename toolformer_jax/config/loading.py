"""The settings of a run, from gin files and bindings: the only module that knows gin.

A binding is `AnnotationConfig.temperature = 0.7`, and for one tool alone
`calculator/ToolConfig.k = 20`. Gin would ignore a name that nothing reads and take any type;
here all settings are built at once, and whatever is wrong is an error.
"""

import contextlib
import dataclasses
import importlib.resources
import logging
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import gin

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.calls import CallSyntax
from toolformer_jax.checkpoints.loading import ModelConfig
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.inference.engine import EngineConfig
from toolformer_jax.inference.request import GenerationConfig
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.tools.executor import ExecutorConfig
from toolformer_jax.tools.passage_index import SearchConfig
from toolformer_jax.tools.registry import CustomToolsConfig, MtConfig, QaConfig, Toolbox
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig

DEFAULT_FILE = 'paper.gin'

_SHIPPED = importlib.resources.files('toolformer_jax.configs')
_KINDS = {kind.__name__: kind for kind in (
    AnnotationConfig, CallSyntax, CustomToolsConfig, EngineConfig, EvaluationConfig,
    ExecutorConfig, FinetuneConfig, GenerationConfig, MixtureConfig, ModelConfig, MtConfig,
    QaConfig, SearchConfig, ToolConfig)}
_RENAMED = {'OwnTools': 'CustomToolsConfig'}
_BUILD = {name: gin.external_configurable(kind) for name, kind in _KINDS.items()}
_BUILD_DECODER = gin.external_configurable(DecoderConfig)

# What stands before `=` in gin's own listing: `MACRO` or `scope/Kind.parameter`.
_ASSIGNED = re.compile(r'^([\w/]+)(?:\.\w+)? =', re.MULTILINE)
_UNKNOWN_KIND = re.compile(r"No configurable matching (?:reference '@)?'?([\w.]+)")
_UNKNOWN_PARAMETER = re.compile(r"'(\w+)' doesn't have a parameter named '(\w+)'")
_UNKNOWN_FILE = re.compile(r'Unable to open file: (.+?)\. Searched')
_UNKNOWN_MACRO = re.compile(r"No bindings specified for '(\w+)/gin.macro'")

# Where gin's `include 'paper.gin'` looks after the working directory.
gin.add_config_file_search_path(str(_SHIPPED))


@dataclass(frozen=True)
class RunConfig:
  """All settings of a run, and the gin text that gives them again."""

  annotation: AnnotationConfig
  engine: EngineConfig
  evaluation: EvaluationConfig
  executor: ExecutorConfig
  finetune: FinetuneConfig
  generation: GenerationConfig
  mixture: MixtureConfig
  model: ModelConfig
  syntax: CallSyntax
  toolbox: Toolbox
  tools: Mapping[str, ToolConfig]
  text: str

  def tool_config(self, tool: str) -> ToolConfig:
    """Returns the settings of the tool called `tool`, in any case.

    A prompt that is no file is looked for in the package, as gin files are.
    """
    settings = self.tools[tool.lower()]
    shipped = _SHIPPED / settings.prompt
    if settings.prompt and not pathlib.Path(settings.prompt).is_file() and shipped.is_file():
      return dataclasses.replace(settings, prompt=str(shipped))
    return settings

  def save(self, directory: pathlib.Path) -> None:
    """Writes the whole configuration, defaults included, to `directory`/config.gin."""
    (directory / 'config.gin').write_text(self.text, 'utf-8')


def load(files: Sequence[str] = (), bindings: Sequence[str] = ()) -> RunConfig:
  """Returns the configuration that `files` and, after them, `bindings` give.

  Args:
    files: gin files, the later ones override; a file that is not there is looked for among those
      of the package (`quickstart.gin`). None at all means the paper's values, `paper.gin`.
    bindings: lines of gin, `AnnotationConfig.seed = 1`.

  Raises:
    UserError: a file cannot be read or parsed, a name in it is unknown or used nowhere, or a
      value is of a wrong type or out of range.
  """
  with _parsed([_find(file) for file in files or [DEFAULT_FILE]], bindings):
    return _build()


def decoder_config(name: str) -> DecoderConfig:
  """Returns the decoder of `configs/models/NAME.gin`, or of the gin file that `name` is a path of.

  Raises:
    UserError: there is no such file, or it describes no decoder.
  """
  file = pathlib.Path(name)
  if not file.is_file():
    if name not in decoder_names():
      raise unknown('model', name, decoder_names())
    file = _SHIPPED / 'models' / f'{name}.gin'
  with _parsed([str(file)], ()):
    config = _BUILD_DECODER()
    _refuse_unused(set(_ASSIGNED.findall(gin.operative_config_str())), ())
  return config


def decoder_names() -> list[str]:
  """Returns the models whose sizes the package knows."""
  files = (_SHIPPED / 'models').iterdir()
  return sorted(path.name.removesuffix('.gin') for path in files if path.name.endswith('.gin'))


@contextlib.contextmanager
def _parsed(paths: Sequence[str], bindings: Sequence[str]) -> Iterator[None]:
  """Lets settings be built from `paths` and `bindings`.

  Raises:
    UserError: they are no gin, or the settings are wrong.
  """
  gin.clear_config()
  try:
    with _silent_root_logger():
      gin.parse_config_files_and_bindings(paths, list(bindings))
    yield
  except (UserError, ValueError, TypeError, AttributeError, SyntaxError, OSError, ImportError,
          RecursionError) as error:
    raise _explained(error) from error


def _build() -> RunConfig:
  """Builds everything from what gin has parsed."""
  toolbox = Toolbox(_BUILD['SearchConfig'](), _BUILD['QaConfig'](), _BUILD['MtConfig'](),
                    _BUILD['CustomToolsConfig']())
  tools = {}
  for tool in toolbox.names():
    with gin.config_scope(tool):
      tools[tool] = _BUILD['ToolConfig']()
  _BUILD['ToolConfig']()  # gin shall know that bindings for all tools are used
  settings = {
      'annotation': _BUILD['AnnotationConfig'](),
      'engine': _BUILD['EngineConfig'](), 'evaluation': _BUILD['EvaluationConfig'](),
      'executor': _BUILD['ExecutorConfig'](), 'finetune': _BUILD['FinetuneConfig'](),
      'generation': _BUILD['GenerationConfig'](), 'mixture': _BUILD['MixtureConfig'](),
      'model': _BUILD['ModelConfig'](), 'syntax': _BUILD['CallSyntax'](), 'toolbox': toolbox}
  text = gin.operative_config_str()
  _refuse_unused(set(_ASSIGNED.findall(text)), tools)
  return RunConfig(tools=tools, text=text, **settings)


def _refuse_unused(used: set[str], tools: Iterable[str]) -> None:
  """Raises UserError if something is assigned that is not among the names `used`."""
  for name in _ASSIGNED.findall(gin.config_str()):
    if name in used:
      continue
    scope, _, kind = name.rpartition('/')
    if kind == 'ToolConfig':
      raise unknown('tool', scope, tools)
    if kind == DecoderConfig.__name__:
      raise UserError(f'{name}: a checkpoint brings its own; the files of models serve `plan`')
    if kind in _KINDS:
      raise UserError(f'{name}: only ToolConfig differ between tools; write {kind} alone')
    macros = sorted(other for other in used if '/' not in other and other not in _KINDS)
    hint = f'; macros in use are {", ".join(macros)}' if macros else ''
    raise UserError(f'the macro {name} is used nowhere{hint}')


def _find(file: str) -> str:
  """Returns the path of the gin file `file`, in the working directory or in the package."""
  if pathlib.Path(file).is_file():
    return file
  shipped = {path.name for path in _SHIPPED.iterdir() if path.name.endswith('.gin')}
  if file in shipped:
    return str(_SHIPPED / file)
  if pathlib.Path(file).name == file:
    raise unknown('gin file', file, shipped)
  raise UserError(f'there is no gin file {file}')


@contextlib.contextmanager
def _silent_root_logger() -> Iterator[None]:
  """Mutes the root logger: gin reports an error for each place where an include is not."""
  root, handler = logging.getLogger(), logging.NullHandler()
  def refuse(record):
    return False
  root.addFilter(refuse)
  root.addHandler(handler)  # without any, logging would install one that stays
  try:
    yield
  finally:
    root.removeHandler(handler)
    root.removeFilter(refuse)


def _explained(error: Exception) -> UserError:
  """Returns the one line that says what is wrong; gin's own has the place in further lines."""
  message, *rest = str(error).splitlines() or [type(error).__name__]
  place = rest[0].strip() if rest and rest[0].strip().startswith('In file') else ''
  where = place.removeprefix('In file ').replace('"', '') + ': ' if place else ''
  if match := _UNKNOWN_PARAMETER.search(message):
    kinds = {**_KINDS, DecoderConfig.__name__: DecoderConfig}
    fields = [field.name for field in dataclasses.fields(kinds[match[1]])]
    message = str(unknown(f'parameter of {match[1]}', match[2], fields))
  elif match := _UNKNOWN_KIND.search(message):
    new_name = _RENAMED.get(match[1])
    message = (f'{match[1]} is now called {new_name}' if new_name
               else str(unknown('settings', match[1], _KINDS)))
  elif match := _UNKNOWN_MACRO.search(message):
    message = f'the macro {match[1]} has no value; write {match[1]} = ...'
  elif match := _UNKNOWN_FILE.search(message):
    message = f'there is no gin file {match[1]}'
  elif isinstance(error, SyntaxError):
    message = (f'not gin: {message.partition(": <")[0]}; a binding is NAME = VALUE, and texts need '
               'quotes')
  elif isinstance(error, TypeError | AttributeError):
    message = f'a value is of a wrong type: {message}'
  elif isinstance(error, RecursionError):
    message = 'a value refers to itself'
  return UserError(where + message)
