"""What depends on a changed setting is computed again, and nothing else; results are the same."""

import contextlib
import dataclasses
import importlib
import json
import logging
import shutil

import pytest

import toolformer_jax as tf_jax
from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import MERGED, stage_folders
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import Shard
from toolformer_jax.training.sources import read_texts
from toolformer_jax.view.data import LiveRun

from .killed import killed_after

TEXTS = [f'There are {i} and {i + 7} ducks. In all there are {2 * i + 7} ducks.' for i in range(6)]
CALCULATOR_CONFIG = tf_jax.ToolConfig(tau_s=0.0, k=3, m=4, tau_f=-1.0)
CONFIG = tf_jax.AnnotationConfig(
    force_name=True, max_text_tokens=60, max_call_tokens=6, temperature=3.0, preselect=False,
    window_documents=2, chunk_documents=2)
SAMPLE, EXECUTE, FILTER = 'calculator/sample', 'calculator/execute', 'calculator/filter'
PROMPT = tf_jax.Prompt('Echo', CALCULATOR.instruction.replace('Calculator', 'Echo'),
                       ('One is [Echo(1)] 1.',))


@pytest.fixture(scope='module')
def model(make_eager_model):
  return make_eager_model(max_positions=8192)


@pytest.fixture(scope='module')
def annotate(model):
  def run(path, tools=('Calculator',), config=CONFIG, version='1', **arguments):
    def echo(name):
      return tf_jax.tool(lambda argument: f'<{argument[:5]}>', name=name, version=version)
    known = {'calculator': CALCULATOR_CONFIG, 'echo': CALCULATOR_CONFIG}
    changes = arguments.pop('tool', {})
    configs = {name.lower(): dataclasses.replace(known[name.lower()], **changes) for name in tools}
    return tf_jax.annotate(
        model, TEXTS, tools=[echo(name) for name in tools], output_dir=path, config=config,
        prompts={'echo': PROMPT} if 'Echo' in tools else None, tool_configs=configs, **arguments)
  return run


@pytest.fixture
def written(monkeypatch):
  """The stages of the chunks that are written, in order."""
  stages, write = [], RunFolder.write
  def noting_write(self, stage, *args):
    stages.append(stage)
    write(self, stage, *args)
  monkeypatch.setattr(RunFolder, 'write', noting_write)
  return stages


@pytest.fixture
def device_calls(monkeypatch):
  """The calls of the functions that use the model, in order."""
  calls = []
  for module, name in (('toolformer_jax.annotation.sample', 'prefill_prompt'),
                       ('toolformer_jax.annotation.sample', 'prefill_documents'),
                       ('toolformer_jax.annotation.filter', 'score')):
    monkeypatch.setattr(f'{module}.{name}', _noting(f'{module}.{name}', calls))
  return calls


def _noting(name, calls):

  module, _, function = name.rpartition('.')
  original = getattr(importlib.import_module(module), function)
  def noting(*args, **kwargs):
    calls.append(function)
    return original(*args, **kwargs)
  return noting


def stages(path):
  """Returns the records of each stage with the current settings, as they are in its files."""
  reader = RunReader(path)
  return {stage: b''.join(reader.chunk_file(stage, chunk).read_bytes()
                          for chunk in reader.all_chunks(stage))
          for stage in reader.settings.folders}


def test_another_tau_f_merges_again_and_is_the_run_with_it(annotate, tmp_path, written,
                                                           device_calls, caplog):
  first = annotate(tmp_path / 'run')
  before = stages(tmp_path / 'run')
  assert device_calls and sum(len(record.calls) for record in first.annotated) > 3
  written.clear()
  device_calls.clear()
  with caplog.at_level(logging.INFO):
    second = annotate(tmp_path / 'run', tool={'tau_f': 0.01})
  assert {*written} == {MERGED} and device_calls == []
  assert ('has other settings than before; reused: documents, calculator/select, '
          'calculator/sample, calculator/execute, calculator/filter; computed: merged'
          ) in caplog.text
  annotate(tmp_path / 'fresh', tool={'tau_f': 0.01})
  assert stages(tmp_path / 'run') == stages(tmp_path / 'fresh')
  assert second.report == (tmp_path / 'fresh/report.md').read_text()
  assert list(read_texts(str(tmp_path / 'run'))) == list(second.annotated) != list(first.annotated)
  tool, = LiveRun(tmp_path / 'run').read().tools
  assert tool.tau_f == 0.01
  written.clear()
  annotate(tmp_path / 'run')  # what belongs to the earlier settings is still there
  assert written == [] and stages(tmp_path / 'run') == before


def test_a_tool_is_added_and_taken_away(annotate, tmp_path, written):
  annotate(tmp_path / 'run')
  alone = stages(tmp_path / 'run')
  written.clear()
  annotate(tmp_path / 'run', tools=('Calculator', 'Echo'))
  assert {*written} == {'echo/select', 'echo/sample', 'echo/execute', 'echo/filter', MERGED}
  annotate(tmp_path / 'fresh', tools=('Echo', 'Calculator'))
  assert stages(tmp_path / 'run') == stages(tmp_path / 'fresh')
  written.clear()
  annotate(tmp_path / 'run')
  assert written == [] and stages(tmp_path / 'run') == alone


@pytest.mark.parametrize(('tool', 'changes', 'again'), [
  ({'k': 2}, {}, {SAMPLE, EXECUTE, FILTER, MERGED}),
  ({'m': 2}, {}, {SAMPLE, EXECUTE, FILTER, MERGED}),
  ({'tau_s': 0.001}, {}, {SAMPLE, EXECUTE, FILTER, MERGED}),
  ({'max_texts': 1}, {}, {MERGED}),
  ({}, {'temperature': 2.0}, {SAMPLE, EXECUTE, FILTER, MERGED}),
  ({}, {'look_ahead_guard': True}, {EXECUTE, FILTER, MERGED}),
  ({}, {'early_reject': True}, {FILTER, MERGED}),
  ({}, {'sampling_rows': 64, 'scoring_tokens': 2048}, set()),
])
def test_what_depends_on_a_setting_is_computed_again(annotate, tmp_path, written, tool, changes,
                                                     again):
  annotate(tmp_path / 'run')
  written.clear()
  config = dataclasses.replace(CONFIG, **changes)
  annotate(tmp_path / 'run', tool=tool, config=config)
  assert {*written} == again
  annotate(tmp_path / 'fresh', tool=tool, config=config)
  assert stages(tmp_path / 'run') == stages(tmp_path / 'fresh')


@pytest.mark.parametrize('tau_f', [0.6, 0.5, 0.4])
def test_with_early_rejection_samples_depend_on_the_lowest_threshold(annotate, tmp_path, written,
                                                                     tau_f):
  config = dataclasses.replace(CONFIG, early_reject=True)
  annotate(tmp_path / 'run', tool={'tau_f': 1.0}, config=config)
  written.clear()
  annotate(tmp_path / 'run', tool={'tau_f': tau_f}, config=config)
  assert {*written} == ({MERGED} if tau_f >= 0.5 else {SAMPLE, EXECUTE, FILTER, MERGED})
  annotate(tmp_path / 'fresh', tool={'tau_f': tau_f}, config=config)
  assert stages(tmp_path / 'run') == stages(tmp_path / 'fresh')


@pytest.mark.parametrize(('arguments', 'message'), [
  ({'depends_on': {'checkpoint': 'other'}}, r"checkpoint \('.*' then, 'other' now\)"),
  ({'depends_on': {'corpus': 'other'}}, r"corpus \('.*' then, 'other' now\)"),
  ({'config': dataclasses.replace(CONFIG, max_text_tokens=50)}, 'settings.max_text_tokens'),
  ({'config': dataclasses.replace(CONFIG, chunk_documents=4)}, 'settings.chunk_documents'),
  ({'version': '2'}, r"another version of Calculator \('1' then, '2' now\).*--from"),
])
def test_what_cannot_be_shared_is_refused_by_name(annotate, tmp_path, arguments, message):
  annotate(tmp_path / 'run')
  before = (tmp_path / 'run/run.json').read_text(), stages(tmp_path / 'run')
  with pytest.raises(UserError, match=message):
    annotate(tmp_path / 'run', **arguments)
  assert ((tmp_path / 'run/run.json').read_text(), stages(tmp_path / 'run')) == before


def test_a_process_with_other_settings_is_refused_while_one_is_at_work(annotate, tmp_path):
  annotate(tmp_path, shard=Shard(0, 2), stages='sample')
  settings = RunReader(tmp_path).settings
  configuration = {**settings.fixed, **settings.current,
                   'settings': {**settings.fixed['settings'], **settings.current['settings']}}
  with (RunFolder(tmp_path, configuration, {}, Shard(1, 2)),
        pytest.raises(UserError, match='is in use by a process with other settings')):
    annotate(tmp_path, shard=Shard(0, 2), tool={'k': 1})


@pytest.mark.parametrize('writes', [0, 1, 4, 8])
def test_a_changed_run_is_killed_and_resumed(annotate, tmp_path, writes):
  annotate(tmp_path / 'run')
  with killed_after(writes):
    annotate(tmp_path / 'run', tool={'k': 2})
  with contextlib.suppress(UserError):
    assert list(read_texts(str(tmp_path / 'run'))) == []  # never those of the earlier settings
  annotate(tmp_path / 'run', tool={'k': 2})
  annotate(tmp_path / 'fresh', tool={'k': 2})
  assert stages(tmp_path / 'run') == stages(tmp_path / 'fresh')


def test_another_run_starts_from_the_stages_of_one(annotate, tmp_path, written, device_calls):
  annotate(tmp_path / 'first')
  before = stages(tmp_path / 'first')
  written.clear()
  device_calls.clear()
  annotate(tmp_path / 'second', tool={'tau_f': 0.01}, start_from=tmp_path / 'first')
  assert {*written} == {MERGED} and device_calls == []
  shutil.rmtree(tmp_path / 'first' / MERGED)
  written.clear()
  annotate(tmp_path / 'third', version='2', start_from=tmp_path / 'second')
  assert {*written} == {EXECUTE, FILTER, MERGED}
  shutil.rmtree(tmp_path / 'first')
  annotate(tmp_path / 'fresh', tool={'tau_f': 0.01})
  assert stages(tmp_path / 'second') == stages(tmp_path / 'fresh')
  assert {stage: stages(tmp_path / 'second')[stage] for stage in (SAMPLE, EXECUTE, FILTER)} == {
      stage: before[stage] for stage in (SAMPLE, EXECUTE, FILTER)}


def test_a_run_may_start_from_one_that_was_killed(annotate, tmp_path, written):
  annotate(tmp_path / 'first', stages='sample', shard=Shard(0, 2))  # two of three chunks
  written.clear()
  annotate(tmp_path / 'second', start_from=tmp_path / 'first')
  assert written.count(SAMPLE) == 1 and written.count(EXECUTE) == 3
  annotate(tmp_path / 'fresh')
  assert stages(tmp_path / 'second') == stages(tmp_path / 'fresh')
  assert RunReader(tmp_path / 'first').chunks(SAMPLE) == [0, 2]


def test_a_run_starts_only_from_a_run(annotate, tmp_path):
  with pytest.raises(UserError, match='nowhere is not the output folder of an annotation run'):
    annotate(tmp_path / 'run', start_from=tmp_path / 'nowhere')


def test_folders_of_earlier_versions_are_refused_in_one_line(annotate, tmp_path):
  tmp_path.joinpath('run.json').write_text(json.dumps(
      {'configuration': {'tools': {'Calculator': {'tau_f': 0.5}}}, 'versions': {}}))
  for read in annotate, LiveRun, lambda path: list(read_texts(str(path))):
    with pytest.raises(UserError, match='made by an earlier version; choose another folder'):
      read(tmp_path)


def test_keys_depend_on_all_that_comes_before():
  tool = {'tau_s': 0.0, 'k': 1, 'm': 1, 'tau_f': 0.5, 'max_texts': 9, 'prompt': 'p', 'version': '1'}
  configuration = {'checkpoint': 'c', 'corpus': 'd', 'tokenizer': 't', 'dtype': 'float32',
                   'limits': {'time_limit_s': 1.0}, 'syntax': {'start': ' ['},
                   'settings': {'seed': 0, 'preselect': True, 'max_text_tokens': 9},
                   'tools': {'Calculator': tool, 'QA': tool}}
  def changed(**changes):
    old, new = stage_folders(configuration), stage_folders({**configuration, **changes})
    return {stage for stage in old if old[stage] != new.get(stage)}
  every = {*stage_folders(configuration)}
  models = {stage for stage in every if stage != 'documents' and not stage.endswith('select')}
  assert changed(corpus='e') == changed(other='x') == changed(syntax={}) == every
  assert changed(checkpoint='e') == changed(dtype='bfloat16') == models
  settings = configuration['settings']
  assert changed(settings={**settings, 'baseline_loss': 'min'}) == set()  # as without the setting
  assert changed(settings={**settings, 'baseline_loss': 'no_call'}) == {
      'calculator/filter', 'qa/filter', 'merged'}
  assert changed(limits={}) == models - {'calculator/sample', 'qa/sample'}
  # The heuristic of the calculator has a seed; QA has none.
  seeded = changed(settings={**configuration['settings'], 'seed': 1})
  assert seeded == models | {'calculator/select'}
  assert changed(tools={'QA': tool}) == {stage for stage in every
                                         if stage.startswith('calculator')} | {MERGED}


@pytest.mark.parametrize(('chunk', 'shards'), [(4, 1), (100, 1), (2, 2), (2, 3)])
def test_records_depend_neither_on_chunks_nor_on_processes(model, tmp_path, chunk, shards):
  """Every second text is selected by the heuristic; a chunk is of selected texts."""
  texts = [text for pair in zip(TEXTS, ['No number.'] * len(TEXTS), strict=True) for text in pair]
  def run(path, chunk, shards):
    config = dataclasses.replace(CONFIG, preselect=True, chunk_documents=chunk)
    for index in range(shards):
      result = tf_jax.annotate(
          model, texts, tools=[tf_jax.tool(lambda argument: '<x>', name='Calculator')],
          tool_configs={'calculator': CALCULATOR_CONFIG}, output_dir=path, config=config,
          shard=Shard(index, shards))
    return result
  whole, divided = run(tmp_path / 'whole', 2, 1), run(tmp_path / 'divided', chunk, shards)
  assert stages(tmp_path / 'divided') == stages(tmp_path / 'whole')
  assert divided.report == whole.report  # with the share of needed tokens in batches
  summary = whole.tool_summaries['Calculator']
  assert (summary.texts, summary.preselected) == (2 * len(TEXTS), len(TEXTS))
  assert all(0 < share <= 1 for share in summary.batch_fill.values()) and summary.batch_fill
