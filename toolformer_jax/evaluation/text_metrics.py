"""Metrics of written texts: translations, summaries, entities, answers.

BLEU and chrF are those of sacrebleu, ROUGE is that of rouge-score; both are extras of this package.
Exact match and F1 of answers are those of SQuAD (Rajpurkar et al. 2016). The F1 of entities counts
names with their types, in any case; that of WNUT 2017 compares positions in the text.
"""

import functools
import importlib.util
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.confidence_intervals import quantiles

_ARTICLES = re.compile(r'\b(a|an|the)\b')
_NO_PUNCTUATION = str.maketrans('', '', string.punctuation)
ENTITY_SEPARATOR = ';'


@dataclass(frozen=True)
class TextMetric:
  """A metric of the texts of one arm, with its 95% interval by bootstrap over texts; 0 to 100."""

  value: float
  low: float
  high: float


# Returns a metric of the texts, given the references of each; and number of samples and seed.
Metric = Callable[[Sequence[str], Sequence[Sequence[str]], int, int], TextMetric]


def text_metrics(names: Sequence[str], texts: Sequence[str], references: Sequence[Sequence[str]],
                 *, samples: int, seed: int) -> dict[str, TextMetric]:
  """Returns metrics by name.

  Args:
    names: of METRICS.
    texts: what was written.
    references: the accepted texts for each of them.
    samples, seed: of the bootstrap.
  """
  return {name: METRICS[name](texts, references, samples, seed) for name in names}


def check_packages(names: Sequence[str]) -> None:
  """Raises UserError if a package is missing that one of these metrics needs."""
  if not all(importlib.util.find_spec(package) for name in names
             for package in _PACKAGES.get(name, ())):
    raise UserError(f'{", ".join(names)} need the extra "tasks": pip install '
                    '"toolformer_jax[tasks]"')


def _sacrebleu(metric_class: str, texts: Sequence[str], references: Sequence[Sequence[str]],
               samples: int, seed: int) -> TextMetric:
  """Returns a corpus metric of sacrebleu; its bootstrap has a seed of its own."""
  del seed
  from sacrebleu import metrics
  from sacrebleu.significance import PairedTest
  metric = getattr(metrics, metric_class)()
  # sacrebleu wants all first references, all second ones, and so on; None where there is none.
  columns = [[one[i] if i < len(one) else None for one in references]
             for i in range(max(map(len, references)))]
  _, results = PairedTest([('texts', list(texts))], {metric_class: metric}, columns,
                          test_type='bs', n_samples=samples)()
  _, (result,) = results.values()  # of the names of the systems, and of the metric
  value, mean, half = map(float, (result.score, result.mean, result.ci))
  return TextMetric(value, max(mean - half, 0.0), min(mean + half, 100.0))


def _mean(of_text: Callable[[str, Sequence[str]], float], texts: Sequence[str],
          references: Sequence[Sequence[str]], samples: int, seed: int) -> TextMetric:
  """Returns the mean of a number between 0 and 1 of each text, in percent."""
  values = np.array([of_text(*pair) for pair in zip(texts, references, strict=True)])
  return _bootstrapped(values[:, None], lambda sums: sums[..., 0] / len(values), samples, seed)


def _bootstrapped(statistics: np.ndarray, metric: Callable[[np.ndarray], np.ndarray],
                  samples: int, seed: int) -> TextMetric:
  """Returns a metric of the sums of statistics over the texts.

  Args:
    statistics: [texts, statistics].
    metric: from sums, [..., statistics], to the metric, [...], between 0 and 1.
    samples, seed: of the bootstrap.
  """
  count = len(statistics)
  counts = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples)
  low, high = quantiles(metric(counts @ statistics))
  return TextMetric(100 * float(metric(statistics.sum(0))), 100 * low, 100 * high)


def _rouge(name: str, text: str, references: Sequence[str]) -> float:
  """Returns the F1 of ROUGE with the reference that fits best, as SciTLDR is scored."""
  score: float = _rouge_scorer(name).score_multi(list(references), text)[name].fmeasure
  return score


@functools.cache
def _rouge_scorer(name: str) -> Any:
  from rouge_score.rouge_scorer import RougeScorer
  return RougeScorer([name], use_stemmer=True)


def normalised_answer(text: str) -> str:
  """Returns an answer without case, punctuation, articles and extra spaces, as SQuAD compares it.
  """
  return ' '.join(_ARTICLES.sub(' ', text.lower().translate(_NO_PUNCTUATION)).split())


def _exact_match(text: str, references: Sequence[str]) -> float:
  return float(normalised_answer(text) in map(normalised_answer, references))


def _answer_f1(text: str, references: Sequence[str]) -> float:
  """Returns the F1 of words with the reference that fits best."""
  return max(_word_f1(normalised_answer(text).split(), normalised_answer(one).split())
             for one in references)


def _word_f1(words: Sequence[str], right: Sequence[str]) -> float:
  common = (Counter(words) & Counter(right)).total()
  return 2 * common / (len(words) + len(right)) if words or right else 1.0


def _entity_f1(texts: Sequence[str], references: Sequence[Sequence[str]], samples: int, seed: int
               ) -> TextMetric:
  """Returns the micro F1 of the entities of all texts."""
  def statistics(text: str, right: Sequence[str]) -> tuple[int, int]:
    found, wanted = entities(text), entities(right[0])
    return (found & wanted).total(), found.total() + wanted.total()
  pairs = np.array([statistics(*pair) for pair in zip(texts, references, strict=True)])
  return _bootstrapped(pairs, lambda sums: 2 * sums[..., 0] / np.maximum(sums[..., 1], 1),
                       samples, seed)


def entities(text: str) -> Counter[str]:
  """Returns the entities of `type: name; type: name`; those without a type are none."""
  parts = (' '.join(part.split()) for part in text.split(ENTITY_SEPARATOR))
  return Counter(part.lower() for part in parts if ': ' in part)


METRICS: Mapping[str, Metric] = {
  'BLEU': functools.partial(_sacrebleu, 'BLEU'), 'chrF': functools.partial(_sacrebleu, 'CHRF'),
  **{title: functools.partial(_mean, functools.partial(_rouge, name))
     for title, name in (('ROUGE-1', 'rouge1'), ('ROUGE-2', 'rouge2'), ('ROUGE-L', 'rougeL'))},
  'exact match': functools.partial(_mean, _exact_match),
  'answer F1': functools.partial(_mean, _answer_f1),
  'entity F1': _entity_f1,
}
_PACKAGES = {'BLEU': ['sacrebleu'], 'chrF': ['sacrebleu'], 'ROUGE-1': ['rouge_score'],
             'ROUGE-2': ['rouge_score'], 'ROUGE-L': ['rouge_score']}
