"""With verification in float32, the filter keeps what float32 keeps."""

import dataclasses

import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.annotation.merge import merge
from toolformer_jax.annotation.verified_filter import RESCORED, score_calls_verified, undecided
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import Document, ExecutedCall, ScoredCall
from toolformer_jax.errors import UserError

DOCUMENT = Document('d', 'There are 48 and 36, which makes 84 in all.')


def kept(calls, tau_f):
  records, _ = merge([DOCUMENT], calls, {'Calculator': tau_f, 'Calendar': tau_f})
  return {(call.position, call.tool, call.argument) for record in records for call in record.calls}


@pytest.mark.parametrize('margin', [0.0, 0.05, 0.5])
def test_whatever_the_errors_within_the_margin_the_same_calls_are_kept(margin):
  rng = np.random.default_rng(0)
  decided_otherwise = rescored = 0
  for _ in range(300):
    # Of two tools: each may keep a call at the same position.
    exact = [ScoredCall('d', 'Calendar' if i % 5 == 0 else 'Calculator', f'{i}',
                        int(rng.integers(6)), 0.1, '1', None,
                        loss_no_call=gain, loss_call=gain, loss_result=0.0)
             for i, gain in enumerate(rng.normal(1, 0.5, 20).tolist())]
    errors = rng.uniform(-margin, margin, 20).tolist()
    fast = [dataclasses.replace(call, loss_no_call=call.gain + error, loss_call=call.gain + error)
            for call, error in zip(exact, errors, strict=True)]
    again = undecided(fast, 1.0, margin)
    verified = [exact[i] if i in again else call for i, call in enumerate(fast)]
    assert kept(verified, 1.0) == kept(exact, 1.0)
    decided_otherwise += kept(fast, 1.0) != kept(exact, 1.0)
    rescored += len(again)
  assert (decided_otherwise > 0) == (margin > 0)
  assert rescored < 300 * 20 * (0.9 if margin == 0.5 else 0.3)


@pytest.fixture(scope='module')
def model(make_model):
  return make_model(max_positions=512)


@pytest.mark.parametrize('early_reject', [False, True])
def test_a_call_that_int8_decides_otherwise_is_decided_as_in_float32(model, early_reject):
  calls = [ExecutedCall('d', 'Calculator', argument, position, 0.1, result)
           for position in range(2, 40, 2) for argument, result in (('48 + 36', '84'), ('9', '9'))]
  def score(one):
    return score_calls(calls, [DOCUMENT], model=one, syntax=DEFAULT_SYNTAX)[0]
  fast_model = model.to_dtype('int8')
  exact, fast = score(model), score(fast_model)
  # A threshold between the two gains of the call whose gains differ most.
  one, other = max(zip(exact, fast, strict=True), key=lambda pair: abs(pair[0].gain - pair[1].gain))
  tau_f = (one.gain + other.gain) / 2
  assert (one.gain >= tau_f) != (other.gain >= tau_f)
  margin = abs(one.gain - other.gain) + 1e-4
  verified, counts = score_calls_verified(
      calls, [DOCUMENT], model=model, fast=fast_model, tau_f=tau_f, margin=margin,
      min_gain=tau_f if early_reject else -np.inf, syntax=DEFAULT_SYNTAX)
  assert kept(verified, tau_f) == kept(exact, tau_f)
  assert 0 < counts[RESCORED] < len(calls) == counts['scored'] == len(verified)


def test_a_run_says_how_many_were_scored_again(make_eager_model, tmp_path):
  model = make_eager_model(max_positions=8192)
  tool = tf_jax.tool(lambda argument: '7', name='Calculator', version='1')
  def annotate(tau_f=0.0, model=model, **settings):
    config = tf_jax.AnnotationConfig(
        **settings, force_name=True, max_text_tokens=60, max_call_tokens=6, temperature=3.0,
        preselect=False)
    return tf_jax.annotate(
        model, [DOCUMENT.text], tools=[tool], output_dir=tmp_path, config=config,
        tool_configs={'calculator': tf_jax.ToolConfig(tau_s=0.0, k=9, m=4, tau_f=tau_f)})
  exact = annotate().scored['Calculator']
  tau_f = float(np.median([call.gain for call in exact]))
  fast = dict(filter_dtype='int8', verify_margin=0.05)
  expected = annotate(tau_f=tau_f)
  found = annotate(tau_f, **fast)
  assert [[(call.position, call.argument) for call in one.calls] for one in found.annotated] == [
      [(call.position, call.argument) for call in one.calls] for one in expected.annotated]
  again = found.tool_summaries['Calculator'].rescored
  assert 0 < again <= len(exact) and f'{again} of {len(exact)} calls were scored' in found.report
  folders = {annotate(t, **fast).run.folder('calculator/filter') for t in (tau_f, tau_f + 1)}
  assert len(folders) == 2
  with pytest.raises(UserError, match='filter_dtype .* needs the ModelConfig.dtype float32'):
    annotate(**fast, model=model.to_dtype('bfloat16'))
  with pytest.raises(UserError, match="filter_dtype must be 'float32' or 'bfloat16' or 'int8'"):
    tf_jax.AnnotationConfig(filter_dtype='int4')
  with pytest.raises(UserError, match='filter_dtype .* not bfloat16'):  # not: no such model
    tf_jax.annotate('nowhere', [DOCUMENT.text], tools=[tool], output_dir=tmp_path,
                    config=tf_jax.AnnotationConfig(filter_dtype='int8'),
                    model_config=tf_jax.ModelConfig(dtype='bfloat16'))
