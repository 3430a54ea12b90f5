"""Accuracy of language identification and BLEU of Apertium on FLORES-200.

    python experiments/language_tools.py --flores DIRECTORY

The directory holds pairs of files, `flores-dev.es-en.es` and `flores-dev.es-en.en`, line by line.
"""

import argparse
import pathlib
import sys

import sacrebleu

from toolformer_jax import cli
from toolformer_jax.tools.apertium import Apertium
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.language import identify_language
from toolformer_jax.tools.mt import MachineTranslation

_TOLD = ('ar', 'de', 'en', 'es', 'fr', 'hi', 'pt', 'ru', 'vi', 'zh')
_TRANSLATED = ('es', 'fr', 'pt')


def main() -> None:
  """Prints the share of sentences whose language is identified, and BLEU by language."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--flores', required=True, type=pathlib.Path, metavar='D')
  parser.add_argument('--lines', type=int, default=300, metavar='N', help='to translate')
  args = parser.parse_args()
  told = {language: [identify_language(line)[0] == language for line in read(args.flores, language)]
          for language in _TOLD}
  for language, right in told.items():
    print(f'{language}: {sum(right) / len(right):.1%} of {len(right)} identified')
  everything = [right for language in told.values() for right in language]
  print(f'all: {sum(everything) / len(everything):.1%} of {len(everything)}')
  tool = MachineTranslation(Apertium(), identify_language)
  english = read(args.flores, 'en')[:args.lines]
  for language in _TRANSLATED:
    sources = read(args.flores, language)[:args.lines]
    outcomes = tool.call_many(sources, [Context()] * len(sources))
    failed = sum(not isinstance(outcome, str) for outcome in outcomes)
    texts = [outcome if isinstance(outcome, str) else '' for outcome in outcomes]
    bleu = sacrebleu.corpus_bleu(texts, [english]).score
    print(f'{language} to en: BLEU {bleu:.1f}, {failed} of {len(sources)} without a translation')


def read(flores: pathlib.Path, language: str) -> list[str]:
  """Returns the sentences in a language; the English ones stand in every pair."""
  pair = f'{"de" if language == "en" else language}-en'
  return (flores / f'flores-dev.{pair}.{language}').read_text('utf-8').splitlines()


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
