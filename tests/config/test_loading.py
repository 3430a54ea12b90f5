"""Gin files give the settings that they bind; whatever is wrong in them is an error of one line."""

import dataclasses
import importlib.resources
import logging
import pathlib
import subprocess
import sys
import types
import typing
from collections.abc import Mapping

import gin
import pytest

from toolformer_jax.annotation.config import ToolConfig
from toolformer_jax.calls import CallSyntax
from toolformer_jax.config import loading as configuration
from toolformer_jax.config.registry import SETTINGS
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.presets import CHECKPOINTS
from toolformer_jax.planning.search import TPU_FINETUNE
from toolformer_jax.tools.custom import PAPER_TOOLS, TOOLS
from toolformer_jax.tools.media_tools import MediaToolbox
from toolformer_jax.tools.registry import Toolbox

CONFIGS = pathlib.Path(str(importlib.resources.files('toolformer_jax.configs')))
SHIPPED = configuration.shipped_files()
MODELS = [name for name in SHIPPED if name.startswith('models/')]


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_files_build_and_what_is_saved_gives_the_same_again(name, tmp_path):
  loaded = configuration.load([name])
  (tmp_path / 'config.gin').write_text(loaded.text, 'utf-8')
  assert configuration.load([tmp_path / 'config.gin']) == loaded


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_files_bind_departures_alone(name, tmp_path):
  """Without any one of its bindings a file gives another configuration, or none at all."""
  lines = pathlib.Path(SHIPPED[name]).read_text('utf-8').splitlines()
  # Ways to compress depart from the grid that they are ablations of, which trains an adapter.
  before = ['answers.gin'] if name.startswith('experiments/compression/') else []
  loaded, own = configuration.load([*before, name]), tmp_path / 'own.gin'
  def is_other() -> bool:
    try:
      return configuration.load([*before, own]) != loaded
    except UserError:
      return True
  for i, line in enumerate(lines):
    if line and not line.startswith(('#', 'include')):
      assert ' = ' in line, 'a binding takes one line'
      own.write_text('\n'.join(lines[:i] + lines[i + 1:]))
      assert is_other(), f'{line!r} binds a default'


def test_every_model_has_a_file_that_binds_its_checkpoint():
  found = {pathlib.Path(name).stem: configuration.load([name]).macros for name in MODELS}
  assert found == {name: {'CHECKPOINT': checkpoint, 'SEED': 0}
                   for name, checkpoint in CHECKPOINTS.items()}


def test_tpu_has_what_plans_take_by_default():
  tpu = configuration.load(['tpu.gin'])
  assert tpu.finetune == TPU_FINETUNE and tpu.model.dtype == 'bfloat16'


@pytest.mark.parametrize('files', [[], ['paper.gin']])
def test_the_defaults_are_the_papers(files):
  paper = configuration.load(files)
  strict, loose = ToolConfig(0.05, 5, 5, 1.0), ToolConfig(0.0, 20, 10, 0.5)
  assert {name.lower(): paper.tools[name.lower()] for name in PAPER_TOOLS} == {
    'calculator': loose, 'calendar': strict, 'mt': loose, 'qa': strict, 'wikisearch': strict
  }
  assert not paper.annotation.force_name and not paper.annotation.look_ahead_guard
  tuned = paper.finetune
  assert (tuned.steps, tuned.batch_size, tuned.row_tokens, tuned.batch_rows) == (2000, 128, 1024, 0)
  assert (tuned.learning_rate, tuned.warmup_fraction, tuned.adapter) == (1e-5, 0.1, None)
  assert (paper.generation.top_k_api, paper.generation.max_calls) == (10, 1)


def test_no_binding_gives_the_defaults_of_the_dataclasses():
  loaded = configuration.load()
  for settings in (*vars(loaded).values(), *vars(loaded.toolbox).values()):
    if dataclasses.is_dataclass(settings):  # tools are built, and have values of their own
      assert settings == type(settings)()


def test_quickstart_departs_from_the_paper_where_it_says():
  paper, quick = configuration.load(), configuration.load(['quickstart.gin'])
  assert quick.annotation.look_ahead_guard and quick.annotation.force_name
  assert quick.tool_config('Calculator').k < paper.tool_config('calculator').k
  for tool in ('calendar', 'qa', 'wikisearch'):
    own, theirs = quick.tool_config(tool), paper.tool_config(tool)
    assert own.tau_s < theirs.tau_s and own.tau_f < theirs.tau_f and own.m < theirs.m
  assert quick.generation == paper.generation
  assert quick.finetune.adapter == LoraConfig(rank=16)
  assert quick.finetune.steps < paper.finetune.steps


def test_later_files_and_then_bindings_override(tmp_path):
  own = tmp_path / 'own.gin'
  own.write_text("include 'quickstart.gin'\nK = 5\ncalculator/ToolConfig.k = %K\n")
  loaded = configuration.load(
    ['tpu.gin', str(own)], ['K = 6', 'calculator/ToolConfig.tau_f = 2.0']
  )
  assert loaded.tool_config('calculator') == ToolConfig(
      tau_s=0.01, k=6, m=5, tau_f=2.0, prompt=str(CONFIGS / 'prompts/word_problems.txt'))
  assert loaded.finetune.remat_policy == 'full' and loaded.finetune.steps == 48


def test_settings_of_all_tools_are_for_those_without_their_own(tmp_path):
  own = tmp_path / 'own.gin'
  own.write_text('ToolConfig.k = 7\nqa/ToolConfig.k = 2\n')
  loaded = configuration.load([own])
  # The file's settings come before the paper's, which are not bound by anybody.
  assert {tool: config.k for tool, config in loaded.tools.items()} == {
      **dict.fromkeys(map(str.lower, TOOLS), 7), 'qa': 2}
  assert loaded.tool_config('calculator').m == 10  # of which the file says nothing
  assert 'qa' not in loaded.shared and 'calculator' in loaded.shared
  (tmp_path / 'config.gin').write_text(loaded.text, 'utf-8')
  assert configuration.load([tmp_path / 'config.gin']).tools == loaded.tools


def test_an_option_for_all_tools_is_not_ignored_where_a_file_binds_one(tmp_path):
  loaded = configuration.load(['quickstart.gin'], ['ToolConfig.tau_s=0', 'ToolConfig.k = 9',
                                                   'qa/ToolConfig.k=4'])
  assert {config.tau_s for config in loaded.tools.values()} == {0}
  assert {tool: config.k for tool, config in loaded.tools.items()} == {
      **dict.fromkeys(map(str.lower, TOOLS), 9), 'qa': 4}
  assert loaded.tool_config('calculator').tau_f == 0.5
  (tmp_path / 'config.gin').write_text(loaded.text, 'utf-8')
  assert configuration.load([tmp_path / 'config.gin']).tools == loaded.tools


MULTI_LINE = {
    'a value in brackets': 'ToolConfig.k = (\n    7  # not (8\n)',
    'a value in several pieces': "ToolConfig.prompt = ('a # b '\n    'ToolConfig.m = 3 (c')",
    'a line that goes on': 'ToolConfig.k = \\\n    7',
    'a block': 'ToolConfig:\n  k = 7  # of all\n\n  m = 3\n',
    'a string over lines': "ToolConfig.prompt = \'\'\'a\nToolConfig.m = 3\n\'\'\'",
    'a macro': 'ToolConfig.k = %NUMBER\nNUMBER = 7',
    'a module': 'toolformer_jax.annotation.config.ToolConfig.k = 7',
    'the last one': 'ToolConfig.k = 6\nToolConfig.k = 7',
    'lists and dicts of others': "TOOLS = [\n  'calculator',  # ToolConfig.m = 9\n  'qa',\n]\n"
                                 "MixtureConfig.rates = {\n  'Calculator': 2.0,\n}\n"
                                 'ToolConfig.k = 7'}


def read_by_gin(text):
  """Returns what gin's own parser binds in ToolConfig."""
  gin.clear_config()
  gin.parse_config(text)
  return gin.get_bindings('ToolConfig')


@pytest.mark.parametrize('included', [False, True])
@pytest.mark.parametrize('what', MULTI_LINE)
def test_bindings_for_all_tools_are_those_that_gin_reads(tmp_path, monkeypatch, what, included):
  monkeypatch.chdir(tmp_path)
  text = MULTI_LINE[what]
  (tmp_path / 'own.gin').write_text(f'# An ablation.\n{text}\n')
  loaded = configuration.load(  # which binds the calculator's own
      ['quickstart.gin'], ["include 'own.gin'  # (a comment"] if included else [text])
  changed = read_by_gin(text)
  assert changed and loaded.tools == {
      name: dataclasses.replace(tool, **changed)
      for name, tool in configuration.load(['quickstart.gin']).tools.items()}
  (tmp_path / 'config.gin').write_text(loaded.text, 'utf-8')
  assert configuration.load([tmp_path / 'config.gin']).tools == loaded.tools


def test_one_seed_for_all_unless_one_is_bound_by_itself(tmp_path):
  loaded = configuration.load([], ['SEED = 7', 'MixtureConfig.seed = 3'])
  assert {loaded.annotation.seed, loaded.evaluation.seed, loaded.finetune.seed,
          loaded.generation.seed} == {7} and loaded.mixture.seed == 3
  (tmp_path / 'config.gin').write_text(loaded.text, 'utf-8')
  again = configuration.load([tmp_path / 'config.gin'], ['SEED = 8'])
  assert (again.annotation.seed, again.mixture.seed) == (8, 3)


def test_options_of_commands_are_macros(tmp_path):
  loaded = configuration.load(
      ['models/gpt2_774m.gin'], ["TOOLS = ('calculator', 'qa')", 'LIMIT = %N', 'N = 5'])
  assert loaded.macros == {'CHECKPOINT': 'hf://openai-community/gpt2-large', 'LIMIT': 5,
                           'SEED': 0, 'TOOLS': ['calculator', 'qa']}
  (tmp_path / 'config.gin').write_text(loaded.text, 'utf-8')
  assert configuration.load([tmp_path / 'config.gin']).macros == loaded.macros


@pytest.mark.parametrize(('text', 'bindings', 'of_all', 'of_recovery'), [
  ('FinetuneConfig.epochs = 2.0', (), (2000, 2.0), (2000, 2.0)),
  ('FinetuneConfig.epochs = 2.0\nrecovery/FinetuneConfig.steps = 60', (), (2000, 2.0), (60, 0.0)),
  ('FinetuneConfig.epochs = 2.0\nrecovery/FinetuneConfig.steps = 60\n'
   'recovery/FinetuneConfig.epochs = 3.0', (), (2000, 2.0), (60, 3.0)),
  ('FinetuneConfig.epochs = 2.0', ('FinetuneConfig.steps = 5',), (5, 0.0), (5, 0.0)),
  ('FinetuneConfig.steps = 5', ('FinetuneConfig.epochs = 2.0',), (5, 2.0), (5, 2.0)),
  ('FinetuneConfig.epochs = 2.0\nFinetuneConfig.steps = 5', (), (5, 2.0), (5, 2.0)),
  ('FinetuneConfig.epochs = 2.0', ('recovery/FinetuneConfig.steps = 5',), (2000, 2.0), (5, 0.0))])
def test_steps_count_where_epochs_come_from_elsewhere(tmp_path, text, bindings, of_all,
                                                     of_recovery):
  file = tmp_path / 'a.gin'
  file.write_text(f'ExperimentConfig.recovery = @recovery/FinetuneConfig()\n{text}\n')
  config = configuration.load([file], bindings)
  for found, expected in ((config.finetune, of_all), (config.experiment.recovery, of_recovery)):
    assert (found.steps, found.epochs) == expected
  file.write_text(config.text)
  assert configuration.load([file]) == config


def test_nothing_stays_from_one_configuration_to_the_next():
  plain = configuration.load()
  configuration.load([], ["CallSyntax.start = ' <'", 'calculator/ToolConfig.k = 3'])
  assert configuration.load() == plain
  assert plain.syntax == CallSyntax()


@pytest.mark.parametrize('binding, message', [
  ('ToolConfig.tau = 3', "unknown parameter of ToolConfig 'tau': did you mean tau_"),
  ('ToolConfg.k = 3', "unknown settings 'ToolConfg': did you mean ToolConfig"),
  ('OwnTools.functions = {}', 'OwnTools is now called CustomToolsConfig'),
  ('calculatr/ToolConfig.k = 3', "unknown tool 'calculatr': did you mean calculator"),
  ('calculator/AnnotationConfig.seed = 3', 'only ToolConfig can be bound for one tool'),
  ('BATCH_SZIE = 7', 'the macro BATCH_SZIE is used nowhere'),
  ('CHEKPOINT = "c"', 'the macro CHEKPOINT is used nowhere; did you mean CHECKPOINT?'),
  ('CHECKPOINT = 5', "CHECKPOINT must be a string such as 'runs/mine', not 5"),
  ('CHECKPOINT = @ToolConfig', 'CHECKPOINT must be a string'),
  ("SEED = '5'", "SEED must be a whole number, not '5'"),
  ('SEED = True', 'SEED must be a whole number, not True'),
  ("TOOLS = 'calculator'", 'TOOLS must be a list of strings'),
  ('TOOLS = [5]', 'TOOLS must be a list of strings'),
  ('CORPUS = %NOWHERE', 'the macro NOWHERE has no value'),
  ('ToolConfig = 3', 'the macro ToolConfig is used nowhere'),
  ('macro.foo = 3', "unknown settings 'macro'"),
  ('macro.value = 3', "unknown settings 'macro'"),
  ('gin.macro.value = 3', "unknown settings 'macro'"),
  ('constant.value = 3', "unknown settings 'constant'"),
  ('singleton.constructor = 3', "unknown settings 'singleton'"),
  ('A/macro.value = 3', 'the macro A is used nowhere'),
  ('a/b/ToolConfig.k = 3', "unknown tool 'a/b'"),
  ('/ToolConfig.k = 3', 'not gin: '),
  ('.k = 3', 'not gin: '),
  ('= 3', 'not gin: '),
  ('%X = 3', 'not gin: '),
  ('é = 3', 'not gin: '),
  ('ToolConfig. = 3', 'not gin: '),
  ('ToolConfig.k.x = 3', "unknown settings 'ToolConfig.k'"),
  ('DecoderConfig.layers = 3', "unknown settings 'DecoderConfig'"),
  ('ToolConfig.k = {', 'not gin: a bracket or a string is not closed'),
  ('ToolConfig.k = (1,', 'not gin: a bracket or a string is not closed'),
  ('ToolConfig.k = }', 'not gin: '),
  ('ToolConfig.k = "', 'not gin: '),
  ('ToolConfig.k = ' + '[' * 500, 'nested too deeply'),
  ('import nowhere_at_all', "No module named 'nowhere_at_all'"),
  ('ToolConfig.k = %KK', 'the macro KK has no value'),
  ("ToolConfig.k = '5'", "ToolConfig.k must be of type int, not '5'"),
  ('ToolConfig.k = 0', 'ToolConfig.k must be between 1 and 1000, not 0'),
  ('ToolConfig.k = five', 'not gin: '),
  ('ToolConfig.k', 'not gin: '),
  ('ToolConfig.k = @Tool()', "unknown settings 'Tool'"),
  ('ToolConfig.k = @ToolConfig()', 'a value refers to itself'),
  ('CallSyntax.start = 5', 'CallSyntax.start must be of type str, not 5'),
  ("CallSyntax.start = ''", 'blank'),
  ("ModelConfig.dtype = 'float16'", "ModelConfig.dtype must be 'float32' or 'bfloat16'"),
  ('ModelConfig.tensor = 0', 'size 0'),
  ('LoraConfig.rank = 3', 'no effect without FinetuneConfig.adapter = @LoraConfig()'),
  ("FinetuneConfig.adapter = 'lora'", 'FinetuneConfig.adapter must be LoraConfig or'),
  ("FinetuneConfig.adapter = 'Ia3Config'", "not 'Ia3Config'; in gin: @Ia3Config()"),
  ('FinetuneConfig.adapter = @Ia3Config', '; in gin: @Ia3Config()'),
  ('FinetuneConfig.adapter = @LoraConfig()\nLoraConfig.rank = 0', 'LoraConfig.rank must be'),
])
def test_wrong_bindings_are_errors_of_one_line(binding, message):
  with pytest.raises(UserError) as caught:
    configuration.load([], [binding])
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)
  assert 'object at' not in str(caught.value)


@pytest.mark.parametrize('binding, shown', [
  ('ModelConfig.dtype = bfloat16', 'ModelConfig.dtype = bfloat16: not gin: '),
  ('GridConfig.seeds = (0, 1', 'GridConfig.seeds = (0, 1: not gin: a bracket or a string is not'),
  ('ToolConfig.k\n= 3', 'ToolConfig.k = 3: not gin: '),
  ('ToolConfig.k = five' + 100 * ' or six', 'ToolConfig.k = five or six or'),
  ('ToolConfig.k = ' + '[' * 500, 'ToolConfig.k =...: a value refers to itself, or is nested')])
def test_a_binding_that_is_not_gin_is_named_among_others(binding, shown):
  with pytest.raises(UserError) as caught:
    configuration.load([], ['SEED = 1', binding, "CORPUS = 'c.jsonl'"])
  message = str(caught.value)
  assert message.startswith(shown) and '\n' not in message and len(message) < 300


@pytest.mark.parametrize('text, message', [
  ('# a comment\nToolConfig.tau = 3\n', 'own.gin, line 2: unknown parameter'),
  ("include 'nowhere.gin'\n", 'own.gin, line 1: there is no gin file nowhere.gin'),
  ('import nowhere_at_all\n', "own.gin, line 1: No module named 'nowhere_at_all'"),
  ('\nimport raises_two_lines\n', 'own.gin, line 2: ZeroDivisionError: one'),
  ('import leaves_python\n', 'own.gin: SystemExit: 3'),
  ('ToolConfig.k = (1,\n 2\n', 'own.gin: not gin: a bracket or a string is not closed'),
  ('ToolConfig.k = "five\n', 'own.gin, line 1: not gin: '),
  ("include 'inner.gin'\n", 'inner.gin, line 2: not gin: '),
])
def test_errors_in_files_name_file_and_line(text, message, tmp_path, monkeypatch):
  (tmp_path / 'raises_two_lines.py').write_text("raise ZeroDivisionError('one\\ntwo')")
  (tmp_path / 'leaves_python.py').write_text('raise SystemExit(3)')
  (tmp_path / 'inner.gin').write_text('\nToolConfig.k = }\n')
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.chdir(tmp_path)
  own = tmp_path / 'own.gin'
  own.write_text(text)
  with pytest.raises(UserError) as caught:
    configuration.load([str(own)])
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)


def test_missing_files_are_errors(tmp_path):
  with pytest.raises(UserError, match="unknown gin file 'papr.gin': did you mean paper.gin"):
    configuration.load(['papr.gin'])
  with pytest.raises(UserError, match="'models/gptj.gin': did you mean models/gptj_6b.gin"):
    configuration.load(['models/gptj.gin'])
  with pytest.raises(UserError, match='there is no gin file .*own.gin'):
    configuration.load([str(tmp_path / 'own.gin')])


def test_looking_for_included_files_logs_nothing(tmp_path, monkeypatch):
  root = logging.getLogger()
  monkeypatch.setattr(root, 'handlers', [])
  configuration.load(['quickstart.gin'])  # includes a file that is not in the working directory
  assert root.handlers == []
  assert root.filters == []


def test_every_field_of_every_settings_class_can_be_bound():
  text = configuration.load().text
  config = configuration.load()
  toolbox = config.toolbox
  for kind in map(type, [*vars(config).values(), *vars(toolbox).values(),
                         *vars(toolbox.media_tools).values()]):
    if dataclasses.is_dataclass(kind) and kind not in (Toolbox, MediaToolbox):
      for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
          continue  # gin leaves out what is empty: no tools of one's own
        assert f'\n{kind.__name__}.{field.name} = ' in text


WRONG = {int: 'x', float: 'x', bool: 'x', str: 5, Mapping: 5, tuple: 5, typing.Literal: 'x',
         types.UnionType: 'x'}


@pytest.mark.parametrize(('settings', 'field'), [
    (settings, field) for settings in SETTINGS.values() for field in dataclasses.fields(settings)],
    ids=lambda value: getattr(value, '__name__', None) or value.name)
def test_every_setting_refuses_another_type(settings, field):
  kind = typing.get_origin(field.type) or field.type
  with pytest.raises(UserError) as caught:
    configuration.load([], [f'{settings.__name__}.{field.name} = {WRONG[kind]!r}'])
  assert '\n' not in str(caught.value) and settings.__name__ in str(caught.value)


def test_no_module_outside_of_config_imports_gin():
  package = pathlib.Path(configuration.__file__).parent.parent
  users = [path.relative_to(package).as_posix() for path in package.rglob('*.py')
           if 'import gin\n' in path.read_text() or 'from gin ' in path.read_text()]
  assert sorted(users) == ['config/loading.py', 'config/trust.py']
  script = ('import sys, toolformer_jax.annotation.pipeline, toolformer_jax.training.finetune\n'
            "sys.exit('gin' in sys.modules)")
  assert subprocess.run([sys.executable, '-c', script], check=False).returncode == 0
