"""How often tools are called, by language and by the k of decoding, beside the paper's figures."""

import dataclasses

import pytest

from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.evaluation.arms import Arm
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.evaluation.scores import aggregate_scores
from toolformer_jax.evaluation.tasks import TASKS
from toolformer_jax.experiments import paper
from toolformer_jax.experiments.comparison import tool_use_rows
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.tools.registry import CustomToolsConfig, Toolbox

ARM = Arm('toolformer', 'model')


def record(number, group, correct, *calls):
  """A scored prediction with calls (tool, result)."""
  return {'id': f'q{number}', 'group': group, 'correct': correct, 'failure': None,
          'calls': [{'tool': tool, 'argument': 'a', 'result': result, 'failure': None}
                    for tool, result in calls]}


def plan_of(task):
  return EvaluationPlan(
      tasks=[task], arms=[ARM], data_dir='tfds:', limit=None, config=EvaluationConfig(),
      generation=GenerationConfig(), engine=EngineConfig(), syntax=DEFAULT_SYNTAX,
      tool_names=['MT', 'WikiSearch'], dtype='float32', checkpoint_hashes={}, tool_versions={},
      limits={}, versions={})


@pytest.mark.parametrize('name', ['mlqa', 'xquad'])
def test_rates_of_calls_are_given_for_each_language(name):
  task = TASKS[name]
  # Of 8 questions in Spanish 6 call MT, one of them in vain; of 8 in Hindi one, of 4 in German
  # none, but one the search.
  translated, in_vain = [('MT', 'x')], [('MT', None)]
  calls = {'es': [translated] * 5 + [in_vain] + [[]] * 2, 'hi': [translated] + [[]] * 7,
           'de': [[('WikiSearch', 'y')]] + [[]] * 3}
  records = [record(f'{language}-{i}', language, False, *made)
             for language, all_made in calls.items() for i, made in enumerate(all_made)]
  scores = aggregate_scores(task, ARM.name, records, EvaluationConfig())
  rows = tool_use_rows(plan_of(task), EvaluationResult(scores=scores))
  title = task.title
  assert [row for row in rows if row[0] != title] == [
      ['', 'tool', 'ours: % of questions', 'paper'],
      [f'{title} De', 'WikiSearch', '25.0', '-'], [f'{title} De', 'MT', '0.0', '63.8 to 94.9'],
      [f'{title} Es', 'MT', '62.5', '63.8 to 94.9'],
      [f'{title} Hi', 'MT', '12.5', '7.3']]
  assert [title, 'MT', '30.0', '63.8 to 94.9, Hindi 7.3'] in rows


def test_table_9_counts_every_call_that_is_made(experiment):
  table9 = experiment('table9_decoding_k')
  # Of ten questions four call a tool: two get a result (one right), two none (both right). The
  # others are answered without a call, three of six rightly.
  made = [[('QA', 'x')], [('QA', 'x')], [('QA', None)], [('QA', None)], *[[]] * 6]
  correct = [True, False, True, True, True, True, True, False, False, False]
  records = [record(i, '', right, *calls)
             for i, (right, calls) in enumerate(zip(correct, made, strict=True))]
  score, = aggregate_scores(table9.tasks()[0], ARM.name, records, EvaluationConfig())
  k, overall, _, with_call, _, without, _, share, _ = table9.row(
      10, score, paper.DECODING_K['lama'][10])
  assert (k, with_call, without, share) == ('10', '75.0', '50.0', '40.0')
  assert overall.startswith('60.0 [')
  # As in the paper, the parts add up to the whole.
  mixed = (float(share) * float(with_call) + (100 - float(share)) * float(without)) / 100
  assert mixed == pytest.approx(score.value)


def test_table_9_has_no_accuracy_where_no_question_has_a_call(experiment):
  table9 = experiment('table9_decoding_k')
  score, = aggregate_scores(table9.tasks()[1], 'disabled',
                            [record(i, '', True) for i in range(4)], EvaluationConfig())
  row = table9.row(0, score, paper.DECODING_K['webquestions'][0])
  assert (row[3], row[5], row[7]) == ('-', '100.0', '0.0')


def test_an_own_tool_called_qa_is_forbidden_where_that_of_the_paper_is():
  own = Toolbox(custom=CustomToolsConfig(functions={'QA': 'my_tools:answer'}))
  plan = dataclasses.replace(plan_of(TASKS['lama']), tool_names=own.canonical_names(
      ['qa', 'wikisearch']))
  # Table 5 forbids QA, table 3 the search.
  for name in ('webquestions', 'nq_open', 'triviaqa'):
    assert plan.tools_of(TASKS[name], ARM) == ['WikiSearch']
  assert plan.tools_of(TASKS['lama'], ARM) == ['QA']
