"""Gin files give the settings that they say; what is amiss in them is an error of one line."""

import dataclasses
import importlib.resources
import logging
import pathlib
import subprocess
import sys

import jax
import pytest

from toolformer_jax.annotation.config import ToolConfig
from toolformer_jax.calls import CallSyntax
from toolformer_jax.config import loading as configuration
from toolformer_jax.errors import UserError
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import abstract_variables
from toolformer_jax.tools.registry import Toolbox

SHIPPED = sorted(
  path.name for path in importlib.resources.files('toolformer_jax.configs').iterdir()
  if path.name.endswith('.gin')
)


@pytest.mark.parametrize('name', SHIPPED)
def test_shipped_files_build_and_what_is_saved_gives_the_same_again(name, tmp_path):
  loaded = configuration.load([name])
  loaded.save(tmp_path)
  assert configuration.load([str(tmp_path / 'config.gin')]) == loaded


def test_paper_has_the_table_of_appendix_a():
  paper = configuration.load(['paper.gin'])
  strict, loose = ToolConfig(0.05, 5, 5, 1.0), ToolConfig(0.0, 20, 10, 0.5)
  assert paper.tools == {
    'calculator': loose, 'calendar': strict, 'mt': loose, 'qa': strict, 'wikisearch': strict
  }
  assert not paper.annotation.force_name and not paper.annotation.look_ahead_guard
  tuned = paper.finetune
  assert (tuned.steps, tuned.batch_rows, tuned.row_tokens) == (2000, 128, 1024)
  assert (tuned.learning_rate, tuned.warmup_fraction, tuned.lora_rank) == (1e-5, 0.1, 0)
  assert (paper.generation.top_k_api, paper.generation.max_calls) == (10, 1)


def test_paper_is_the_default_and_searches_what_the_tool_searches_by_default():
  assert configuration.load() == configuration.load(['paper.gin'])
  assert configuration.load().toolbox == Toolbox()  # what `toolformer call` relies on


def test_quickstart_departs_from_the_paper_where_it_says():
  paper, quick = configuration.load(), configuration.load(['quickstart.gin'])
  assert quick.annotation.look_ahead_guard and quick.annotation.force_name
  assert quick.tool_config('Calculator').k < paper.tool_config('calculator').k
  for tool in ('calendar', 'qa', 'wikisearch'):
    own, theirs = quick.tool_config(tool), paper.tool_config(tool)
    assert own.tau_s < theirs.tau_s and own.tau_f < theirs.tau_f and own.m < theirs.m
  assert quick.generation == paper.generation
  assert quick.finetune.lora_rank and quick.finetune.steps < paper.finetune.steps


def test_later_files_and_then_bindings_override(tmp_path):
  own = tmp_path / 'own.gin'
  own.write_text("include 'paper.gin'\nSEED = 5\nAnnotationConfig.seed = %SEED\n")
  loaded = configuration.load(
    ['quickstart.gin', str(own)], ['SEED = 6', 'calculator/ToolConfig.tau_f = 2.0']
  )
  assert loaded.annotation.seed == 6
  assert loaded.annotation.force_name is False  # the paper's again
  assert loaded.tool_config('calculator').tau_f == 2.0
  assert loaded.tool_config('calculator').k == 20


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
  ('calculator/AnnotationConfig.seed = 3', 'only ToolConfig differ between tools'),
  ('BATCH_SZIE = 7', 'the macro BATCH_SZIE is used nowhere'),
  ('ToolConfig.k = %KK', 'the macro KK has no value'),
  ("ToolConfig.k = '5'", "ToolConfig.k must be of type int, not '5'"),
  ('ToolConfig.k = 0', 'ToolConfig.k must be between 1 and 1000, not 0'),
  ('ToolConfig.k = five', 'not gin: '),
  ('ToolConfig.k', 'not gin: '),
  ('ToolConfig.k = @Tool()', "unknown settings 'Tool'"),
  ('ToolConfig.k = @ToolConfig()', 'a value refers to itself'),
  ('CallSyntax.start = 5', 'wrong type'),
  ("CallSyntax.start = ''", 'blank'),
  ("ModelConfig.dtype = 'float16'", "ModelConfig.dtype must be 'float32' or 'bfloat16'"),
  ('ModelConfig.tensor = 0', 'size 0'),
])
def test_wrong_bindings_are_errors_of_one_line(binding, message):
  with pytest.raises(UserError) as caught:
    configuration.load([], [binding])
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)
  assert 'object at' not in str(caught.value)


@pytest.mark.parametrize('text, message', [
  ('# a comment\nToolConfig.tau = 3\n', 'own.gin, line 2: unknown parameter'),
  ("include 'nowhere.gin'\n", 'own.gin, line 1: there is no gin file nowhere.gin'),
  ('import nowhere_at_all\n', "own.gin, line 1: No module named 'nowhere_at_all'"),
])
def test_errors_in_files_name_file_and_line(text, message, tmp_path):
  own = tmp_path / 'own.gin'
  own.write_text(text)
  with pytest.raises(UserError) as caught:
    configuration.load([str(own)])
  assert message in str(caught.value)
  assert '\n' not in str(caught.value)


def test_missing_files_are_errors(tmp_path):
  with pytest.raises(UserError, match="unknown gin file 'papr.gin': did you mean paper.gin"):
    configuration.load(['papr.gin'])
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
  for kind in map(type, [*vars(config).values(), *vars(config.toolbox).values()]):
    if dataclasses.is_dataclass(kind) and kind is not Toolbox:
      for field in dataclasses.fields(kind):
        if field.default is dataclasses.MISSING:
          continue  # gin leaves out what is empty: no tools of one's own
        assert f'\n{kind.__name__}.{field.name} = ' in text


def test_no_other_module_imports_gin():
  package = pathlib.Path(configuration.__file__).parent.parent
  users = [path.relative_to(package).as_posix() for path in package.rglob('*.py')
           if 'import gin\n' in path.read_text() or 'from gin ' in path.read_text()]
  assert users == ['config/loading.py']
  script = ('import sys, toolformer_jax.annotation.pipeline, toolformer_jax.training.finetune\n'
            "sys.exit('gin' in sys.modules)")
  assert subprocess.run([sys.executable, '-c', script], check=False).returncode == 0


@pytest.mark.parametrize(('name', 'parameters'), [  # as published, or as transformers counts them
  ('gemma3_270m', 268_098_176), ('gpt2_124m', 124_439_808), ('gpt2_355m', 354_823_168),
  ('gpt2_774m', 774_030_080), ('gpt2_1.5b', 1_557_611_200), ('gptj_6b', 6_050_882_784),
  ('qwen3_0.6b', 596_049_920), ('smollm2_135m', 134_515_008), ('smollm2_360m', 361_821_120),
  ('smollm2_1.7b', 1_711_376_384)])
def test_models_have_their_published_size(name, parameters):
  variables = abstract_variables(Decoder(configuration.decoder_config(name)))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == parameters
  assert name in configuration.decoder_names()


def test_every_model_is_counted():
  assert len(configuration.decoder_names()) == 10


@pytest.mark.parametrize(('content', 'message'), [
  ('DecoderConfig.layer = 3', "unknown parameter of DecoderConfig 'layer': did you mean layers"),
  ('DecoderConfig.layers = 3', 'a value is of a wrong type: .*missing'),
])
def test_a_file_that_is_no_model(tmp_path, content, message):
  (tmp_path / 'own.gin').write_text(content)
  with pytest.raises(UserError, match=message):
    configuration.decoder_config(str(tmp_path / 'own.gin'))


def test_names_of_models_are_checked():
  with pytest.raises(UserError, match="unknown model 'gptj': did you mean gptj_6b"):
    configuration.decoder_config('gptj')
  with pytest.raises(UserError, match='a checkpoint brings its own'):
    configuration.load([], ['DecoderConfig.layers = 3'])
