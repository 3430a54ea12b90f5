"""Does a tuned model answer held-out questions about media better with its tools than without?

    python experiments/media_answers.py --corpus D --checkpoint C [--base B] [--parts text,photo]
        [--limit N] [--output F]

D is the folder that media_corpus.py made, and C a model that was fine-tuned on the kept calls. Each
question of `PART_questions.jsonl` is continued greedily three times: by the base model, by the
tuned model without tools, and by the tuned model with the tool of the part. A continuation is right
if its first line, without calls, has all words of one of the accepted answers. Intervals are 95%:
Wilson's, and of the difference a paired bootstrap. F gets the continuations, as JSON Lines.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from media_calls import is_right
from media_corpus import MAKERS

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.evaluation.confidence_intervals import bootstrap_accuracy_difference, wilson
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.markdown import markdown_table

TOOLS = {'text': 'OCR', 'photo': 'Recognize', 'speech': 'Transcribe', 'video': 'Frames'}
_SAMPLES = 1000


def main() -> None:
  """Prints a table with a line for each part."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--corpus', required=True, type=pathlib.Path, metavar='D')
  parser.add_argument('--checkpoint', required=True, metavar='C')
  parser.add_argument('--base', default='smollm2-135m', metavar='B')
  parser.add_argument('--parts', default=','.join(MAKERS), metavar='A,B')
  parser.add_argument('--limit', type=int, metavar='N', help='questions of each part')
  parser.add_argument('--output', type=pathlib.Path, metavar='F')
  args = parser.parse_args()
  parts = {part: questions(args.corpus, part, args.limit) for part in args.parts.split(',')}
  base = tf_jax.load_model(args.base)
  without = {part: answers(base, rows, args.corpus) for part, rows in parts.items()}
  tuned, lines = tf_jax.load_model(args.checkpoint), []
  rows: list[list[object]] = [['part', 'tool', 'questions', 'base', 'tuned, no tool', 'tuned',
                               'difference', 'called']]
  for part, asked in parts.items():
    disabled = answers(tuned, asked, args.corpus)
    given = answers(tuned, asked, args.corpus, TOOLS[part])
    rows.append(row(part, asked, without[part], disabled, given))
    lines += [json.dumps({'id': one['id'], 'answers': one['answers'], 'base': texts[0].text,
                          'no_tool': texts[1].text, 'tool': texts[2].text})
              for one, *texts in zip(asked, without[part], disabled, given, strict=True)]
    if args.output:
      args.output.write_text('\n'.join(lines) + '\n', 'utf-8')
  print(markdown_table(rows))


def questions(corpus: pathlib.Path, part: str, limit: int | None) -> list[dict[str, Any]]:
  """Returns the first questions of a part, all without a limit."""
  lines = (corpus / f'{part}_questions.jsonl').read_text('utf-8').splitlines()
  return [json.loads(line) for line in lines[:limit]]


def answers(model: LanguageModel, asked: Sequence[dict[str, Any]], corpus: pathlib.Path,
            tool: str | None = None) -> list[Any]:
  """Returns the continuations of questions, with a tool or without any."""
  config = tf_jax.GenerationConfig(max_tokens=32, stop=('\n',), disable_tools=tool is None)
  return tf_jax.generate(
      model, [one['prompt'] for one in asked], tools=[tool] if tool else [], config=config,
      media=[[corpus / name for name in one['media']] for one in asked])


def row(part: str, asked: Sequence[dict[str, Any]], base: Sequence[Any], disabled: Sequence[Any],
        given: Sequence[Any]) -> list[object]:
  """Returns the line of a part."""
  right = [[is_right(DEFAULT_SYNTAX.remove(text.text, [TOOLS[part]]), one['answers'])
            for one, text in zip(asked, texts, strict=True)] for texts in (base, disabled, given)]
  low, high = bootstrap_accuracy_difference(right[1], right[2], samples=_SAMPLES, seed=0)
  change = 100 * (sum(right[2]) - sum(right[1])) / len(asked)
  called = [any(call.call.result is not None for call in text.calls) for text in given]
  return [part, TOOLS[part], len(asked), *map(share, right),
          f'{change:+.0f} [{100 * low:+.0f}, {100 * high:+.0f}]', share(called)]


def share(right: Sequence[bool]) -> str:
  """Returns a share in percent, with its interval."""
  low, high = wilson(sum(right), len(right))
  return f'{100 * sum(right) / len(right):.0f}% [{100 * low:.0f}, {100 * high:.0f}]'


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
