"""Perplexity on WikiText-2 and on held-out documents of a corpus (paper, 4.3)."""

import re
from collections.abc import Iterator

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder, read_lines, read_text
from toolformer_jax.evaluation.task import PerplexityTask, Text

_TITLE = re.compile(r'^ = [^=\n].*? = ?$', re.MULTILINE)


def read_wikitext2(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Text]:
  """Yields the articles of WikiText-2 (Merity et al. 2017): of its test or validation file."""
  path = folder.file('wiki.test.*', 'test.txt', 'wiki.valid.*', 'valid.txt')
  folder.split = 'test' if 'test' in path.name else 'validation'
  text = read_text(path)
  starts = [match.start() for match in _TITLE.finditer(text)]
  if not starts:
    raise UserError(f'{path}: no line is the title of an article, ` = Title = `')
  for i, (start, end) in enumerate(zip(starts, [*starts[1:], len(text)], strict=True)):
    yield Text(f'wikitext-{i:03}', text[start:end].strip())


def read_corpus(folder: TaskFolder, config: EvaluationConfig) -> Iterator[Text]:
  """Yields the documents of all files: of CCNet, as in the paper, or of another corpus."""
  for path in folder.files('*.jsonl', '*.jsonl.zst', '*.json'):
    for i, fields in enumerate(read_lines(path)):
      text = fields.get('text', fields.get('raw_content'))
      if not isinstance(text, str):
        raise UserError(f'{path}: document {i} has no `text` and no `raw_content`, a string')
      if text.strip():
        yield Text(f'{path.name}-{i:06}', text)


WIKITEXT2 = PerplexityTask('wikitext2', 'WikiText', read_wikitext2,
                           'fetch wiki.test.tokens of wikitext-2-v1.zip')
CORPUS = PerplexityTask(
    'corpus', 'held-out corpus', read_corpus,
    'put JSON Lines or files of CCNet there (.jsonl, .json.gz), documents with a `text` or '
    '`raw_content` that no model was trained on',
    remark='The paper has 10,000 documents of CCNet.')
