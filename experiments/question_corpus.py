"""Makes a corpus of questions for the search, and test questions that it can help with.

    python experiments/question_corpus.py --data_dir D --search PAGES --output O

Of NQ-open and of XQuAD's English questions it takes those whose answer the search finds when it is
asked the question itself. O/texts.jsonl has them as the evaluation asks them, each followed by `The
answer is A.` Results with this corpus have to say that its questions were chosen so.

Of WebQuestions the same choice is O/found/webquestions/test.json, in the format of brmson. Neither
NQ-open nor XQuAD can be reported on by a model that learned from the texts.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator

from toolformer_jax import cli
from toolformer_jax.data.records import Document, write_records
from toolformer_jax.evaluation.answer_matching import contains
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.task import Question
from toolformer_jax.evaluation.tasks import load_examples
from toolformer_jax.evaluation.tasks.multilingual import read_squad
from toolformer_jax.evaluation.tasks.questions import NQ_OPEN, WEBQUESTIONS, prompt
from toolformer_jax.runtime.paths import as_path
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.passage_index import SearchConfig, passage_index
from toolformer_jax.tools.wikisearch import WikiSearch

_CONFIG = EvaluationConfig()
_PREFIX = prompt('?').removesuffix('?')


def main() -> None:
  """Writes the texts and the questions."""
  args = parse(__doc__ or '')
  settings = SearchConfig(corpus=args.search)
  search = WikiSearch(passage_index(settings), settings.snippet_words)
  args.output.mkdir(parents=True, exist_ok=True)
  write_records(args.output / 'texts.jsonl',
                (Document(question.id, f'{question.prompt} The answer is {answer}.')
                 for question, answer in found(training_questions(args.data_dir), search)))
  folder = args.output / 'found' / WEBQUESTIONS.name
  folder.mkdir(parents=True, exist_ok=True)
  asked = load_examples(WEBQUESTIONS, args.data_dir, _CONFIG)
  chosen = [question for question, _ in found(asked, search)]
  (folder / 'test.json').write_text(json.dumps(
      [{'qId': question.id, 'qText': question.prompt.removeprefix(_PREFIX),
        'answers': question.answers} for question in chosen], ensure_ascii=False, indent=1))
  print(f'{len(chosen)} of {len(asked)} questions of WebQuestions', file=sys.stderr)


def parse(description: str) -> argparse.Namespace:
  """Parses the options."""
  parser = cli.Parser(description=description,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data_dir', type=as_path, required=True, metavar='D',
                      help='has nq_open/, xquad/ and webquestions/')
  parser.add_argument('--search', required=True, metavar='F', help='as SearchConfig.corpus')
  parser.add_argument('--output', type=pathlib.Path, required=True, metavar='O')
  return parser.parse_args()


def training_questions(data_dir: pathlib.Path) -> Iterator[Question]:
  """Yields the questions of NQ-open and of XQuAD."""
  yield from load_examples(NQ_OPEN, data_dir, _CONFIG)
  path = next(path for path in sorted((data_dir / 'xquad').glob('xquad.en.json*')))
  for _, qa in read_squad(path):
    answers = tuple(dict.fromkeys(answer['text'] for answer in qa['answers']))
    yield Question(f'xquad-{qa["id"]}', prompt(qa['question']), answers)


def found(questions: Iterator[Question] | list[Question], search: WikiSearch
          ) -> Iterator[tuple[Question, str]]:
  """Yields the questions whose answer the search finds, with that answer."""
  for question in questions:
    try:
      result = search(question.prompt.removeprefix(_PREFIX), Context())
    except ToolError:
      continue
    answer = next((one for one in question.answers if contains(result, one, _CONFIG)), None)
    if answer:
      yield question, answer


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
