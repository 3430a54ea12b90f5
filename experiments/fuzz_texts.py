"""Damaged texts for `fuzz.py`: calls, expressions and corpora."""

import bz2
import gzip
import json
import lzma
import pathlib
import random
from collections.abc import Callable

import zstandard
from fuzz_target import ACCEPTED, REFUSED, Target, refusable
from mutation import json_bytes, mutate_bytes, mutate_json, mutate_text

from toolformer_jax.calls import Call, CallSyntax

_PROSE = (
    'Of 400 people, 100 (or [Calculator(100 / 400)] 25%) came. [1] See [the list](a).',
    'It was [Calculator(2 + 3) -> 5] five; [Calendar() -> Today is Monday.] and [Calculator(1',
    'A text [Calculator( without an end -> and [MT("(a)") -> b] others (see) -> ]',
    ' [Calculator(a) ->  [Calculator(b) -> c] d]', 'naïve 🙂 [QA(")") -> \\]]')
_NAMES = ('Calculator', 'Calendar', 'MT', 'QA')
_SYNTAXES = (CallSyntax(), CallSyntax('<API>', '=>', '</API>'), CallSyntax('[[', '->', ']]'))


def _grammar(folder: pathlib.Path) -> Target:
  """Inserts a call into a text: removing the calls gives the text back (law 2)."""
  def make(rng: random.Random) -> tuple[str, Call, int, CallSyntax]:
    text = mutate_text(rng.choice(_PROSE), _PROSE, rng)
    argument = mutate_text(rng.choice(('2 + 3', '"a (b) c"', '', 'f(x)')), _PROSE, rng)
    result = mutate_text('5', _PROSE, rng)
    syntax = rng.choice(_SYNTAXES)
    call = Call(rng.choice(_NAMES), argument, syntax.clean_result(result, 100))
    return text, call, rng.randrange(len(text) + 1), syntax

  def run(made: tuple[str, Call, int, CallSyntax]) -> str:
    text, call, at, syntax = made
    if syntax.find(text, _NAMES):  # annotation leaves such a text out
      syntax.remove(text, _NAMES)
      return REFUSED
    try:
      written = syntax.linearise(call)
    except ValueError:
      return REFUSED
    assert syntax.remove(text[:at] + written + text[at:], _NAMES) == text, 'law 2'
    return ACCEPTED

  return Target(make, run)


def _calculator(folder: pathlib.Path) -> Target:
  from toolformer_jax.tools.base import Context, ToolError
  from toolformer_jax.tools.calculator import Calculator
  seeds = ('27 + 4 * 2', '(1,234.5 - 2) / 3%', '"$5 x 3 ="', '-(-3)', '[1 + {2 * 3}] ÷ 7', '2 ** 9')
  def run(expression: str) -> str:
    def calculate() -> None:
      assert isinstance(Calculator()(expression, Context()), str)
    return refusable(calculate, ToolError)
  return Target(lambda rng: mutate_text(rng.choice(seeds), seeds, rng), run)


_ROWS = b'\n'.join(json.dumps(row).encode() for row in (
    {'id': 'a', 'text': 'One text.', 'url': 'https://example.org/2020/01/30/a', 'date': '2020-1-2'},
    {'text': 'Another.', 'timestamp': '2019-04-25T12:57:54Z', 'metadata': {'title': 'T'}},
    {'raw_content': 'CCNet', 'date_download': '2019-01-01T00:00:00Z', 'title': None}))
_DUMP = '''<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><namespaces>
<namespace key="0" /><namespace key="6">File</namespace></namespaces></siteinfo><page><title>A
</title><ns>0</ns><revision><timestamp>2020-01-01T00:00:00Z</timestamp><text>{}</text></revision>
</page></mediawiki>'''
_WIKITEXT = (
    "'''Ghana''' ({{IPA|en|a}}) is a [[country]] in [[West Africa|the west]].<ref name=a>b</ref> "
    'It has {{convert|238535|km2}} and {{nts|30}} million people. ' + 'Words and words. ' * 10,
    '== History ==\n* one [[File:a.jpg|thumb|x [[y]]]]\n{| class="a"\n| b || c\n|}\n<math>x</math>',
    '{{Infobox|a={{b|c={{d}}}}}}\nText <!-- no --> <nowiki>[[x]]</nowiki> &nbsp; {{lang|fr|mot}}')
_COMPRESSORS = {'gz': gzip.compress, 'bz2': bz2.compress, 'xz': lzma.compress,
                'zst': zstandard.ZstdCompressor().compress}


def _corpus_target(folder: pathlib.Path, make: Callable[[random.Random], tuple[str, bytes]]
                   ) -> Target:
  """Reads a corpus: `make` returns the name of a file and its content."""
  from toolformer_jax.data.corpus import CorpusConfig, read_corpus
  def run(made: tuple[str, bytes]) -> str:
    path = folder / made[0]
    path.write_bytes(made[1])
    return refusable(lambda: list(read_corpus(path, CorpusConfig(min_words=1))))
  return Target(make, run)


def _jsonl(folder: pathlib.Path) -> Target:
  rows = [json.loads(line) for line in _ROWS.splitlines()]
  def make(rng: random.Random) -> tuple[str, bytes]:
    if rng.random() < 0.5:
      return 'a.jsonl', mutate_bytes(_ROWS, [_ROWS], rng)
    return 'a.jsonl', b'\n'.join(json_bytes(mutate_json(row, rng)) for row in rows)
  return _corpus_target(folder, make)


def _compressed(folder: pathlib.Path) -> Target:
  dump = _DUMP.format(_WIKITEXT[0].replace('<', '&lt;')).encode()
  def make(rng: random.Random) -> tuple[str, bytes]:
    kind = rng.choice(list(_COMPRESSORS))
    name, content = rng.choice((('a.jsonl', _ROWS), ('a.xml', dump)))
    whole = _COMPRESSORS[kind](content)
    return f'{name}.{kind}', mutate_bytes(whole, [whole], rng)
  return _corpus_target(folder, make)


def _mediawiki(folder: pathlib.Path) -> Target:
  dumps = [_DUMP.format(text.replace('&', '&amp;').replace('<', '&lt;')).encode()
           for text in _WIKITEXT]
  return _corpus_target(
      folder, lambda rng: ('a.xml', mutate_bytes(rng.choice(dumps), dumps, rng)))


def _wikitext(folder: pathlib.Path) -> Target:
  from toolformer_jax.data.wikitext import plain_text
  from toolformer_jax.data.wikitext_blocks import TooMuchMarkup
  return Target(lambda rng: mutate_text(rng.choice(_WIKITEXT), _WIKITEXT, rng),
                lambda text: refusable(lambda: plain_text(text), TooMuchMarkup))


TARGETS = {'grammar': _grammar, 'calculator': _calculator, 'jsonl': _jsonl,
           'compressed': _compressed, 'mediawiki': _mediawiki, 'wikitext': _wikitext}
