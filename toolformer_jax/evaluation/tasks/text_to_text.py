"""Tasks whose answer is a written text: translations, summaries, entities, turns of a dialogue.

A prompt is the source and the name of what is asked for, on a line of its own; the text follows on
the same line. Fine-tuning learns the same form.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.answer_matching import FirstLine
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder, read_json, read_lines, read_text
from toolformer_jax.evaluation.task import Question, TextTask, interleave
from toolformer_jax.evaluation.tasks.multilingual import read_squad
from toolformer_jax.evaluation.text_metrics import ENTITY_SEPARATOR

# The languages of FLORES-200 that are translated into English, by their codes in file names.
LANGUAGES = {'de': 'German', 'es': 'Spanish', 'fr': 'French', 'pt': 'Portuguese', 'ru': 'Russian',
             'zh': 'Chinese', 'vi': 'Vietnamese', 'hi': 'Hindi', 'ar': 'Arabic'}
NO_ENTITY = 'none'
_TEST_SHARE = 5  # every fifth line of FLORES's dev part, and dialogue of SGD, is of the test split
_TURNS = 6  # of a dialogue that a prompt has
_SENTENCE_END = re.compile(r'(?<=[.!?])\s+')


@dataclass(frozen=True)
class Pair:
  """A source and what has to be written for it.

  Attributes:
    source: the source.
    targets: the texts that are right; the first one is learned.
    group: the part of the benchmark that it belongs to.
    baseline: what a trivial system writes, such as a copy of the source; '' if there is none.
  """

  source: str
  targets: Sequence[str]
  group: str = ''
  baseline: str = ''


class ReadPairs(Protocol):
  """Yields the pairs of a split by its name."""

  def __call__(self, folder: TaskFolder, split: str, /) -> Iterator[Pair]:
    """Yields the pairs of `split`."""
    ...


def read_flores200(folder: TaskFolder, split: str) -> Iterator[Pair]:
  """Yields sentences to translate into English; the splits are made of the dev part's lines.

  Translation with the source itself is the baseline.
  """
  def of_language(language: str) -> Iterator[Pair]:
    stem = f'flores-dev.{language}-en'
    sources, targets = (read_text(folder.file(f'{stem}.{one}')).splitlines()
                        for one in (language, 'en'))
    for pair in _of_split(folder, list(zip(sources, targets, strict=True)), split, 'line of dev'):
      yield Pair(pair[0], [pair[1]], language, pair[0])
  there = [language for language in LANGUAGES if any(
      (folder.path / f'flores-dev.{language}-en.en{end}').exists() for end in ('', '.gz'))]
  return interleave(map(of_language, there or ['de']))


def _of_split(folder: TaskFolder, items: Sequence, split: str, unit: str) -> list:
  """Returns the items of a split that is ours and not official, as `folder` then says."""
  if split == 'test':
    folder.split = f'every fifth {unit}'
  return [item for number, item in enumerate(items)
          if (number % _TEST_SHARE == _TEST_SHARE - 1) == (split == 'test')]


def read_scitldr(folder: TaskFolder, split: str) -> Iterator[Pair]:
  """Yields papers (SciTLDR, Cachola et al. 2020, variant AIC); the first sentence is the baseline.
  """
  for paper in read_lines(folder.file(f'{split}.jsonl', f'SciTLDR-AIC/{split}.jsonl')):
    yield Pair(' '.join(' '.join(paper['source']).split()), paper['target'],
               baseline=paper['source'][0])


def read_xsum(folder: TaskFolder, split: str) -> Iterator[Pair]:
  """Yields articles with a sentence about each (XSum, Narayan et al. 2018)."""
  for row in folder.rows('xsum', split):
    article = row['document'].decode()
    yield Pair(' '.join(article.split()), [row['summary'].decode()],
               baseline=_SENTENCE_END.split(article.strip())[0])


def read_wnut17(folder: TaskFolder, split: str) -> Iterator[Pair]:
  """Yields posts with their entities (WNUT 2017, Derczynski et al. 2017)."""
  name = {'train': 'wnut17train.conll', 'test': 'emerging.test.annotated'}[split]
  for block in re.split(r'\n\s*\n', read_text(folder.file(name)).strip()):
    words = [line.split('\t')[:2] for line in block.splitlines()]
    found = [f'{kind}: {entity}' for kind, entity in _entities(words)]
    yield Pair(' '.join(word for word, _ in words),
               [f'{ENTITY_SEPARATOR} '.join(found) or NO_ENTITY])


def _entities(words: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
  """Returns the type and the name of each entity of words with their tags.

  An entity also begins where a tag I does not continue one of its type, as in conlleval.
  """
  found: list[tuple[str, str]] = []
  open_kind = ''
  for word, tag in words:
    mark, _, kind = tag.partition('-')
    if mark == 'I' and kind == open_kind:
      found[-1] = kind, f'{found[-1][1]} {word}'
    elif mark in ('B', 'I'):
      found.append((kind, word))
    open_kind = kind
  return found


def read_sgd(folder: TaskFolder, split: str) -> Iterator[Pair]:
  """Yields turns of the system (schema-guided dialogues, Rastogi et al. 2020) after the last ones.

  The splits are made of the dialogues of all files that are there.
  """
  files = folder.files('dialogues_*.json')
  dialogues = [dialogue for file in files for dialogue in read_json(file)]
  for dialogue in _of_split(folder, dialogues, split, 'dialogue'):
    said = [f'{turn["speaker"].title()}: {turn["utterance"]}' for turn in dialogue['turns']]
    for number, turn in enumerate(dialogue['turns']):
      if turn['speaker'] == 'SYSTEM':
        yield Pair('\n'.join(said[max(0, number - _TURNS):number]), [turn['utterance']])


def read_xquad_en(folder: TaskFolder, split: str) -> Iterator[Pair]:
  """Yields the English questions of XQuAD with their paragraphs; it has no training split."""
  if split != 'test':
    raise UserError('xquad_en is for evaluation alone: it has no training split')
  for paragraph, qa in read_squad(folder.file('xquad.en.json')):
    answers = dict.fromkeys(answer['text'] for answer in qa['answers'])
    yield Pair(f'{paragraph}\nQuestion: {qa["question"]}', [*answers])


def _task(name: str, title: str, read_pairs: ReadPairs, asked: str, metrics: tuple[str, ...],
          how_to_get: str, *, tokens: int, folder: str = '', baseline: str = '',
          groups: tuple[tuple[str, str], ...] = ()) -> TextTask:
  """Returns the task whose test split `read_pairs` reads, and whose prompts ask for `asked`."""
  def prompt(source: str) -> str:
    lines = (' '.join(line.split()) for line in source.splitlines())
    return '\n'.join([*filter(None, lines), f'{asked}:'])
  def read(opened: TaskFolder, split: str) -> Iterator[Question]:
    for number, pair in enumerate(read_pairs(opened, split)):
      targets = tuple(filter(None, (' '.join(target.split()) for target in pair.targets)))
      yield Question(f'{name}-{split}-{number:05}', prompt(pair.source), targets, pair.group,
                     baseline=' '.join(pair.baseline.split()))
  def read_test(opened: TaskFolder, config: EvaluationConfig) -> Iterator[Question]:
    return read(opened, 'test')
  return TextTask(
      name, title, read_test, how_to_get, FirstLine(tokens), prompt=prompt('...').replace(
          '\n', ' / '), groups=groups, split='test', read_split=read, metrics=metrics,
      baseline=baseline, folder=folder)


FLORES200 = _task(
    'flores200', 'FLORES-200 into English', read_flores200, 'English', ('BLEU', 'chrF'),
    'put the lines of the dev part there as flores-dev.de-en.de, flores-dev.de-en.en, ...',
    tokens=96, baseline='copy of the source',
    groups=tuple((code, f'FLORES-200 {language}') for code, language in LANGUAGES.items()))
SCITLDR = _task(
    'scitldr', 'SciTLDR', read_scitldr, 'TL;DR', ('ROUGE-1', 'ROUGE-2', 'ROUGE-L'),
    'fetch SciTLDR-AIC/train.jsonl and test.jsonl of allenai/scitldr', tokens=64,
    baseline='first sentence')
XSUM = _task(
    'xsum', 'XSum', read_xsum, 'TL;DR', ('ROUGE-1', 'ROUGE-2', 'ROUGE-L'),
    'TensorFlow Datasets has it: download its articles by hand, as '
    'tensorflow.org/datasets/catalog/xsum says, and give --data_dir tfds:', tokens=64,
    baseline='first sentence')
WNUT17 = _task(
    'wnut17', 'WNUT 2017', read_wnut17, 'Entities', ('entity F1',),
    'fetch wnut17train.conll and emerging.test.annotated of leondz/emerging_entities_17', tokens=96)
SGD = _task(
    'sgd', 'Schema-guided dialogues', read_sgd, 'System', ('BLEU', 'ROUGE-L'),
    'fetch dialogues_*.json of google-research-datasets/dstc8-schema-guided-dialogue', tokens=64)
XQUAD_EN = _task(
    'xquad_en', 'XQuAD (English questions)', read_xquad_en, 'Answer', ('exact match', 'answer F1'),
    'fetch xquad.en.json of github.com/google-deepmind/xquad', tokens=32, folder='xquad')
