"""Metrics of written texts equal those of the libraries and of the definitions."""

import numpy as np
import pytest

from toolformer_jax.evaluation.text_metrics import (
  METRICS,
  entities,
  normalised_answer,
  text_metrics,
)

TEXTS = ['the cat sat on the mat now', 'a dog', 'it rains in spring and autumn', ''] * 4
REFERENCES = [['the cat sat on a mat'], ['a big dog', 'dogs'], ['it rains in spring'], ['sun']] * 4


def _value(name, texts=TEXTS, references=REFERENCES):
  metric = text_metrics([name], texts, references, samples=200, seed=0)[name]
  assert metric.low <= metric.value + 1e-9 and metric.value <= metric.high + 1e-9
  return metric.value


@pytest.mark.parametrize(('name', 'metric_class'), [('BLEU', 'BLEU'), ('chrF', 'CHRF')])
def test_translations_are_scored_as_sacrebleu_does(name, metric_class):
  metrics = pytest.importorskip('sacrebleu.metrics')
  columns = [[one[i] if i < len(one) else None for one in REFERENCES] for i in range(2)]
  expected = getattr(metrics, metric_class)().corpus_score(TEXTS, columns, n_bootstrap=200)
  assert _value(name) == pytest.approx(expected.score)
  found = text_metrics([name], TEXTS, REFERENCES, samples=200, seed=0)[name]
  half, middle = (found.high - found.low) / 2, (found.high + found.low) / 2
  assert f'(μ = {middle:.2f} ± {half:.2f})' in str(expected)


@pytest.mark.parametrize(('name', 'key'), [
  ('ROUGE-1', 'rouge1'), ('ROUGE-2', 'rouge2'), ('ROUGE-L', 'rougeL')])
def test_summaries_are_scored_as_rouge_score_does(name, key):
  scorer = pytest.importorskip('rouge_score.rouge_scorer').RougeScorer([key], use_stemmer=True)
  expected = np.mean([max(scorer.score(one, text)[key].fmeasure for one in references)
                      for text, references in zip(TEXTS, REFERENCES, strict=True)])
  assert _value(name) == pytest.approx(100 * expected)


def test_answers_are_compared_as_in_squad():
  assert normalised_answer('The  Denver-Broncos, a team!') == 'denverbroncos team'
  assert _value('exact match', ['The cat.', 'dog'], [['cat'], ['cat', 'Dogs']]) == 50.0
  # 'denver broncos' against three words: precision 1, recall 2/3.
  assert _value('answer F1', ['Denver Broncos'], [['no', 'the Denver Broncos team']]) == (
      pytest.approx(80.0))
  assert _value('answer F1', ['the'], [['a']]) == 100.0  # nothing is left of both


def test_entities_count_once_for_each_time_they_are_named():
  text = 'person: Ann;  location:  New   York ; person: Ann; nothing'
  assert entities(text) == {'person: ann': 2, 'location: new york': 1}
  # Two of three that were found are right, of four that there are: F1 is 4 / 7.
  found, right = 'person: Ann; person: Bo; group: X', 'person: Ann; person: Bo; person: C; group: Y'
  assert _value('entity F1', [found], [[right]]) == pytest.approx(100 * 4 / 7)
  assert _value('entity F1', ['none'], [['none']]) == 0.0  # no entity, and none was found


def test_entity_f1_is_that_of_all_texts_together():
  texts, right = ['person: A', 'person: B'], [['person: A'], ['person: B; person: C; person: D']]
  assert _value('entity F1', texts, right) == pytest.approx(100 * 4 / 6)


@pytest.mark.parametrize('name', METRICS)
def test_right_texts_have_the_best_value_and_a_point_as_interval(name):
  right = ['person: Ann went to the big old town', 'place: over there by the sea'] * 5
  metric = text_metrics([name], right, [[one] for one in right], samples=50, seed=0)[name]
  assert metric.value == pytest.approx(100) and metric.low == pytest.approx(100)


def test_intervals_hold_their_value_as_often_as_they_say():
  # Answers that are right with probability 0.3: the interval has to hold 30 in 95 of 100 cases.
  rng, held = np.random.default_rng(0), 0
  for _ in range(100):
    texts = ['yes' if right else 'no' for right in rng.random(200) < 0.3]
    metric = text_metrics(['exact match'], texts, [['yes']] * 200, samples=400, seed=0)
    held += metric['exact match'].low <= 30 <= metric['exact match'].high
  assert 88 <= held <= 100
