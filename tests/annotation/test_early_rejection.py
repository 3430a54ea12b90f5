"""Early rejection keeps the same calls, and samples none where none can be kept."""

import dataclasses

import jax
import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax.annotation.early_rejection import min_loss_no_call
from toolformer_jax.annotation.filter import WEIGHTS
from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import stage_folders
from toolformer_jax.inference import branch_sampling
from toolformer_jax.models.language_model import LanguageModel

from .killed import killed_after

TOOLS = ('Calculator', 'Echo')
CONFIG = tf_jax.AnnotationConfig(
    force_name=True, max_text_tokens=60, max_call_tokens=6, temperature=3.0, preselect=False,
    window_documents=4, chunk_documents=4)
EARLY = dataclasses.replace(CONFIG, early_reject=True)
TAU_F = 0.03
TOOL_CONFIG = tf_jax.ToolConfig(tau_s=0.0, k=20, m=4, tau_f=TAU_F)
ECHO = tf_jax.Prompt('Echo', CALCULATOR.instruction.replace('Calculator', 'Echo'),
                     ('One is [Echo(1)] 1.',))


def texts(count):
  """Returns texts of random letters, with what the model expects everywhere in their middle."""
  rng = np.random.default_rng(0)
  def some(letters, size):
    return ''.join(rng.choice([*letters], size))
  return [f'{some("abc 123", 12)}{")" * int(rng.integers(8, 20))}{some("xyz 789", 12)}'
          for _ in range(count)]


TEXTS = texts(9)


@pytest.fixture(scope='module')
def model(make_eager_model):
  """A random model that expects `)`, and whose losses depend on what is before the text."""
  model = make_eager_model(max_positions=8192)
  parameters = model.variables['params']
  blocks = jax.tree.map(lambda x: 8 * x if x.ndim > 2 else x, parameters['blocks'])
  head = {'kernel': 10 * parameters['head']['kernel'],
          'bias': parameters['head']['bias'].at[model.tokenizer.encode(')')[0]].set(24.0)}
  return LanguageModel.from_variables(
      model.config, {'params': {**parameters, 'blocks': blocks, 'head': head}}, model.tokenizer,
      model.mesh)


@pytest.fixture(scope='module')
def annotate(model):
  def run(path, config, tools=TOOLS, **tool):
    made = [tf_jax.tool(lambda argument: f'<{argument[:5]}>', name=name, version='1')
            for name in tools]
    return tf_jax.annotate(
        model, TEXTS, tools=made, output_dir=path, config=config,
        prompts={'echo': ECHO} if 'Echo' in tools else None,
        tool_configs={name.lower(): dataclasses.replace(TOOL_CONFIG, **tool) for name in tools})
  return run


def kept(result):
  """Returns the texts of C*, with their calls and what is known of them."""
  return {(record.document.id, record.document.text, call.position, call.tool, call.argument,
           call.result): (call.probability, call.loss_no_call, call.loss_call, call.loss_result)
          for record in result.annotated for call in record.calls}


def losses_no_call(model, text):
  """Returns the weighted loss at each position of a text, by one plain pass."""
  ids = model.tokenizer.encode(text)
  tokens = np.array([[model.tokenizer.start_id, *ids]], np.int32)
  logits = np.asarray(model.decoder.apply(model.variables, tokens)[0][0], np.float64)
  logprobs = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)
                             ) - logits.max(-1, keepdims=True)
  losses = np.append(-logprobs[range(len(ids)), ids], [0.0] * len(WEIGHTS))
  return [float((WEIGHTS * losses[i:i + len(WEIGHTS)]).sum()) for i in range(len(ids))]


@pytest.mark.parametrize(('tools', 'changes'), [
  (TOOLS[:1], {}), (TOOLS, {}), (TOOLS, {'call_placement': 'in_place'}),
  (TOOLS[:1], {'baseline_loss': 'no_call'}), (TOOLS[:1], {'top_p': 0.9, 'seed': 1}),
  (TOOLS[:1], {'filter_dtype': 'int8', 'verify_margin': 1.0})], ids=str)
def test_the_same_calls_are_kept(annotate, tmp_path, tools, changes):
  whole, early = (annotate(tmp_path / name, dataclasses.replace(config, **changes), tools)
                  for name, config in (('whole', CONFIG), ('early', EARLY)))
  expected, found = kept(whole), kept(early)
  assert list(found) == list(expected) and len(found) > 1
  for place, numbers in found.items():
    if 'filter_dtype' not in changes:  # else losses of calls that are surely kept are of int8
      np.testing.assert_allclose(numbers, expected[place], rtol=1e-4)
  for tool in tools:
    every, fewer = (result.tool_summaries[tool] for result in (whole, early))
    assert fewer.rejected_positions + fewer.positions == every.positions
    assert 0 < fewer.rejected_positions < every.positions and fewer.kept == every.kept
    assert fewer.texts_kept == every.texts_kept


def test_no_call_is_sampled_where_the_loss_without_one_is_low(annotate, tmp_path, model,
                                                              monkeypatch):
  sampled, original = [], branch_sampling.sample_branches
  def noting(model, prefilled, branches, *args, **kwargs):
    sampled.extend(branches)
    return original(model, prefilled, branches, *args, **kwargs)
  monkeypatch.setattr(branch_sampling, 'sample_branches', noting)
  result = annotate(tmp_path / 'all', CONFIG, TOOLS[:1], m=1)
  positions = {document.id: losses_no_call(model, document.text) for document in result.documents}
  every, sampled[:] = len(sampled), []
  result = annotate(tmp_path / 'early', EARLY, TOOLS[:1], m=1)
  summary = result.tool_summaries['Calculator']
  assert len(sampled) == summary.positions == summary.samples
  assert every == len(sampled) + summary.rejected_positions and len(sampled) < every
  for call in result.run.calls('Calculator', 'sample'):
    loss = positions[call.document_id][call.position]
    assert loss > TAU_F - 0.002 and call.loss_no_call == pytest.approx(loss, rel=1e-4)
  for call in result.scored['Calculator']:
    assert call.loss_no_call == pytest.approx(positions[call.document_id][call.position], rel=1e-4)
  assert (f'no call was sampled at {summary.rejected_positions} of {every} positions'
          in result.report)
  missing = RunReader(tmp_path / 'all').calls('Calculator', 'filter')
  rejected = [call for call in missing
              if positions[call.document_id][call.position] < TAU_F - 0.002]
  assert rejected and max(call.gain for call in rejected) < TAU_F


@pytest.mark.parametrize('writes', [8, 15])
def test_a_killed_run_continues_to_the_same_files(annotate, tmp_path, writes):
  annotate(tmp_path / 'whole', EARLY)
  with killed_after(writes):
    annotate(tmp_path / 'killed', EARLY)
  annotate(tmp_path / 'killed', EARLY)
  def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*')
            if path.is_file() and path.name != 'times.log'}
  assert files(tmp_path / 'killed') == files(tmp_path / 'whole')


def test_what_is_rejected_depends_on_threshold_and_baseline():
  def least(tau_f, **settings):
    return min_loss_no_call(tau_f, dataclasses.replace(EARLY, **settings))
  assert [least(tau_f) for tau_f in (2.0, 0.5, 0.3, 0.0, -1.0)] == [0.5, 0.5, 0.3, 0.0, 0.0]
  assert least(0.3, baseline_loss='no_call') == least(0.3, call_placement='in_place') == 0.3
  assert least(0.3, baseline_loss='no_result') == least(0.3, early_reject=False) == 0.0


def test_folders_of_earlier_runs_are_found_and_samples_depend_on_the_threshold():
  def folders(early, **tool):
    return stage_folders({
        'checkpoint': 'c', 'dtype': 'float32', 'settings': {'seed': 0, 'early_reject': early},
        'limits': {}, 'tools': {'QA': {'tau_f': 1.0, 'k': 5, **tool}}})
  before = {False: ('qa/sample/88398ab91f93', 'qa/filter/1975064f74b7', 'merged/21b010d448ad'),
            True: ('qa/sample/88398ab91f93', 'qa/filter/61405d240e1c', 'merged/2c6d71f0ea66')}
  for early, names in before.items():
    assert tuple(folders(early)[stage] for stage in ('qa/sample', 'qa/filter', 'merged')) == names
  some = [folders(True, min_loss_no_call=least) for least in (0.5, 0.3)] + [folders(True)]
  assert len({one['qa/sample'] for one in some}) == 3
  assert len({one['qa/select'] for one in some}) == 1
