"""Reads gin files and bindings.

Gin by itself ignores a binding that nothing reads, and accepts a value of any type. Here all
settings are built at once, and whatever is wrong is an error before the work starts.
"""

import contextlib
import dataclasses
import importlib.resources
import logging
import pathlib
import textwrap
import tokenize
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import gin
from etils import epath
from gin import config_parser

from toolformer_jax.annotation.config import PAPER_TOOL_CONFIGS, ToolConfig
from toolformer_jax.config import checking, trust
from toolformer_jax.config.registry import RUN_MACROS, SETTINGS, default_bindings
from toolformer_jax.config.run_config import RunConfig
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.runtime.paths import as_path, is_file, is_remote, open_text
from toolformer_jax.tools.custom import CustomToolsConfig, function_tool
from toolformer_jax.tools.media_tools import MediaToolbox
from toolformer_jax.tools.registry import Toolbox
from toolformer_jax.training.config import FinetuneConfig

_Config = TypeVar('_Config', ToolConfig, EvaluationConfig)
_SHIPPED = importlib.resources.files('toolformer_jax.configs')
_EXPERIMENTS = importlib.resources.files('toolformer_jax.configs.experiments')
_MAX_SHOWN = 80  # characters of a binding in an error
_BUILD = {name: gin.external_configurable(settings) for name, settings in SETTINGS.items()}

# Where gin looks for `include 'quickstart.gin'` after the working directory, and for
# `include 'experiments/paper.gin'`: in the sources, configs/ and experiments/ are neighbours.
gin.add_config_file_search_path(str(_SHIPPED))
gin.add_config_file_search_path(str(pathlib.Path(str(_EXPERIMENTS)).parent))
gin.config.register_file_reader(lambda name: open_text(as_path(name)),
                                lambda name: is_remote(name) and as_path(name).is_file())


def load(files: Sequence[epath.PathLike] = (), bindings: Sequence[str] = (),
         implied: Mapping[str, str] | None = None) -> RunConfig:
  """Returns the configuration that `files` and, after them, `bindings` give.

  What they do not bind has its default, which is the paper's value where the paper states one.
  `ToolConfig.k = 3` in a file is for all tools for which no file binds their own `k`; in `bindings`
  it is for all tools for which these do not bind their own. A file that `bindings` include, such as
  an ablation of a grid, counts as one of them.

  Args:
    files: gin files, the later ones override; a file that is not there is looked for among those
      of the package (`quickstart.gin`, `models/gptj_6b.gin`).
    bindings: lines of gin, `AnnotationConfig.seed = 1`.
    implied: further bindings by the run macro, such as TEACHER, that makes them if it is bound.

  Raises:
    UserError: a file cannot be read or parsed, a name in it is unknown or used nowhere, or a
      value is of a wrong type or out of range.
  """
  paths, source = [_find(str(file)) for file in files], ''
  gin.clear_config()
  try:
    with _silent_root_logger():
      gin.parse_config(list(default_bindings()))
      for source in paths:
        trust.check_trusted(as_path(source))
        gin.parse_config_file(source)
      source = ''
      trust.check_included(_parsed(bindings))
      gin.parse_config(list(bindings))
      gin.parse_config([line for macro, line in (implied or {}).items() if _is_bound(macro)])
      gin.finalize()
    config = _build(bindings)
    trust.record(config.text)
    return config
  # A gin file may import a module, which may raise anything or exit.
  except (Exception, SystemExit) as error:
    raise checking.explained(error, source) from error


def _parsed(bindings: Sequence[str]) -> Iterator[Any]:
  """Yields the statements of bindings.

  Raises:
    UserError: one of them is not gin.
  """
  for binding in bindings:
    try:
      yield from trust.parse_statements(binding)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError) as error:
      shown = textwrap.shorten(binding, _MAX_SHOWN, placeholder='...')
      raise UserError(f'{shown}: {checking.explained(error, "")}') from error


def _macros_and_toolbox() -> tuple[Mapping[str, Any], Toolbox]:
  """Returns the run macros, and how tools are built: those that TOOLS names by path as well."""
  macros, custom = _with_functions(_macros(), _BUILD['CustomToolsConfig']())
  return macros, Toolbox(_BUILD['SearchConfig'](), _BUILD['QaConfig'](), _BUILD['MtConfig'](),
                         custom, _BUILD['MediaLimits'](), _media_tools())


def _media_tools() -> MediaToolbox:
  return MediaToolbox(_BUILD['FramesConfig'](), _BUILD['OcrConfig'](), _BUILD['RecognizeConfig'](),
                      _BUILD['SpeakConfig'](), _BUILD['TranscribeConfig']())


def _bound_for_all_tools() -> Mapping[str, Any]:
  """Returns what `ToolConfig.NAME = VALUE` binds."""
  return gin.get_bindings('ToolConfig', resolve_references=False, inherit_scopes=False)


def _bound_for_tool(tool: str, *, inherit: bool) -> Mapping[str, Any]:
  """Returns what `tool/ToolConfig.NAME = VALUE` binds; with `inherit`, for all tools as well."""
  return gin.get_bindings(f'{tool}/ToolConfig', resolve_references=False, inherit_scopes=inherit)


def _bind_tools(tools: Collection[str], bindings: Sequence[str]) -> None:
  """Binds for each tool what `bindings` bind for all, and the paper's values where none are bound.
  """
  given = {(statement.scope, statement.arg_name) for statement in _statements('\n'.join(bindings))
           if isinstance(statement, config_parser.BindingStatement) and statement.arg_name
           and statement.selector.rpartition('.')[2] == ToolConfig.__name__}
  for_all = _bound_for_all_tools()  # as gin has read them: the bindings came last
  for tool in tools:
    for name in (name for scope, name in given if not scope and (tool, name) not in given):
      gin.bind_parameter(f'{tool}/ToolConfig.{name}', for_all[name])
  for tool, config in PAPER_TOOL_CONFIGS.items():
    for field in dataclasses.fields(config):
      value = getattr(config, field.name)
      if value != field.default and field.name not in _bound_for_tool(tool, inherit=True):
        gin.bind_parameter(f'{tool}/ToolConfig.{field.name}', value)


def _bind_steps(bindings: Sequence[str]) -> None:
  """Sets `epochs` to 0, so that `steps` counts, where `steps` is bound more closely than `epochs`.

  These are trainings whose epochs a file binds and whose steps `bindings` bind, and a recovery with
  steps of its own and the epochs that are bound for all trainings.
  """
  name = FinetuneConfig.__name__
  given = {(statement.scope, statement.arg_name) for statement in _statements('\n'.join(bindings))
           if isinstance(statement, config_parser.BindingStatement)
           and statement.selector.rpartition('.')[2] == name}
  of_all, own = (gin.get_bindings(one, resolve_references=False, inherit_scopes=False)
                 for one in (name, f'recovery/{name}'))
  if ('', 'steps') in given and ('', 'epochs') not in given and of_all.get('epochs'):
    gin.bind_parameter(f'{name}.epochs', 0.0)
  is_bound = 'recovery' in gin.get_bindings('ExperimentConfig', resolve_references=False)
  if is_bound and 'steps' in own and 'epochs' not in own and of_all.get('epochs'):
    gin.bind_parameter(f'recovery/{name}.epochs', 0.0)


def _statements(text: str) -> Iterator[Any]:
  """Yields the statements of bindings, and of the files that they include, directly or not."""
  for statement in trust.parse_statements(text):
    if isinstance(statement, config_parser.IncludeStatement):
      with open_text(as_path(_find(statement.filename))) as file:
        yield from _statements(file.read())
    else:
      yield statement


def _build(bindings: Sequence[str]) -> RunConfig:
  """Builds everything from what gin has parsed; the last of it are `bindings`."""
  macros, toolbox = _macros_and_toolbox()
  shared = frozenset(tool for tool in toolbox.names()
                     if not _bound_for_tool(tool, inherit=False))
  with gin.unlock_config():
    _bind_tools(toolbox.names(), bindings)
    _bind_steps(bindings)
  tools = {}
  for tool in toolbox.names():
    with gin.config_scope(tool):
      tools[tool] = _with_shipped_file(_BUILD['ToolConfig'](), 'prompt')
  _BUILD['ToolConfig']()  # so that gin lists bindings for all tools as used
  settings = {
      'annotation': _BUILD['AnnotationConfig'](), 'compression': _BUILD['CompressionConfig'](),
      'corpus': _BUILD['CorpusConfig'](), 'engine': _BUILD['EngineConfig'](),
      'evaluation': _with_shipped_file(_BUILD['EvaluationConfig'](), 'few_shot_prompt'),
      'executor': _BUILD['ExecutorConfig'](), 'experiment': _BUILD['ExperimentConfig'](),
      'finetune': _BUILD['FinetuneConfig'](), 'generation': _BUILD['GenerationConfig'](),
      'grid': _BUILD['GridConfig'](), 'mixture': _BUILD['MixtureConfig'](),
      'model': _BUILD['ModelConfig'](), 'pretrain': _BUILD['PretrainConfig'](),
      'serving': _BUILD['ServingConfig'](), 'syntax': _BUILD['CallSyntax'](),
      'toolbox': toolbox}
  text = gin.operative_config_str()
  checking.refuse_unused(gin.config_str(), text, tools)
  return RunConfig(tools=tools, shared=shared, macros=macros, text=text, **settings)


def _macros() -> Mapping[str, Any]:
  """Returns the values of the run macros that are bound."""
  bound = filter(_is_bound, RUN_MACROS)
  return {name: checking.check_macro(name, gin.get_configurable(f'{name}/gin.macro')())
          for name in bound}


def _is_bound(macro: str) -> bool:
  return bool(gin.get_bindings(f'{macro}/gin.macro', resolve_references=False,
                               inherit_scopes=False))


def _with_functions(macros: Mapping[str, Any], custom: CustomToolsConfig
                    ) -> tuple[Mapping[str, Any], CustomToolsConfig]:
  """Makes of each function that TOOLS names by its path one of the user's own tools."""
  paths = [one for one in macros.get('TOOLS', ()) if ':' in one]
  if not paths:
    return macros, custom
  names = {path: function_tool('', path).name for path in paths}
  functions = {**custom.functions, **{name: path for path, name in names.items()}}
  return ({**macros, 'TOOLS': [names.get(one, one) for one in macros['TOOLS']]},
          dataclasses.replace(custom, functions=functions))


def _with_shipped_file(config: _Config, field: str) -> _Config:
  """Returns `config` with the path of the file that a field names; the package may have it."""
  name = getattr(config, field)
  shipped = _SHIPPED / name
  if not name or is_file(as_path(name)) or not shipped.is_file():
    return config
  found: dict[str, Any] = {field: str(shipped)}
  return dataclasses.replace(config, **found)


def _find(file: str) -> str:
  """Returns the path of the gin file `file`, in the working directory or in the package."""
  if is_file(as_path(file)):
    return file
  shipped = shipped_files()
  if file in shipped:
    return shipped[file]
  if file.startswith(('models/', 'experiments/')) or pathlib.Path(file).name == file:
    raise unknown('gin file', file, shipped)
  raise UserError(f'there is no gin file {file}')


def shipped_files() -> dict[str, str]:
  """Returns the paths of the package's gin files by name, such as 'models/gptj_6b.gin'."""
  found: dict[str, str] = {}
  for prefix, root in (('', _SHIPPED), ('experiments/', _EXPERIMENTS)):
    folder = pathlib.Path(str(root))
    found |= {prefix + path.relative_to(folder).as_posix(): str(path)
              for path in sorted(folder.rglob('*.gin'))}
  return found


@contextlib.contextmanager
def _silent_root_logger() -> Iterator[None]:
  """Mutes the root logger: gin reports an error for each place where an include is not."""
  root, handler = logging.getLogger(), logging.NullHandler()
  def refuse(record: logging.LogRecord) -> bool:
    return False
  root.addFilter(refuse)
  root.addHandler(handler)  # without any, logging would install one that stays
  try:
    yield
  finally:
    root.removeHandler(handler)
    root.removeFilter(refuse)
