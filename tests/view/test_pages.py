"""Pages show what the records hold and nothing that the records hold is markup."""

import html.parser
import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolformer_jax.data.records import Candidate, Document, ExecutedCall
from toolformer_jax.view import charts
from toolformer_jax.view.data import LiveRun
from toolformer_jax.view.gains import ToolGains
from toolformer_jax.view.pages import TEXTS_PER_PAGE, error_page, page_count, run_page
from toolformer_jax.view.query import parse, select

HOSTILE = ('<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "' onclick='x", '<!--',
           '&lt;b&gt; &amp; &', '</p></article></script>', '[Calculator(1) → 1]', '\r\n\t\x0b',
           ']]>')
TEXTS = st.lists(st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=('Cs',))),
                 max_size=4).map(''.join)
VOID = {'input', 'link', 'meta'}
TAGS = {'html', 'head', 'title', 'style', 'body', 'script', 'header', 'h1', 'ul', 'li', 'form',
        'section', 'h2', 'span', 'svg', 'text', 'rect', 'line', 'div', 'label', 'output', 'select',
        'option', 'button', 'main', 'p', 'strong', 'b', 'nav', 'a', 'article', 'table', 'thead',
        'tbody', 'tr', 'th', 'td', *VOID}


class Shown(html.parser.HTMLParser):
  """What a browser makes of a page.

  Attributes:
    texts: of the documents, without their calls.
    calls: of the documents, as they stand in the texts.
    cells: of the tables of losses.
    bars: of the histograms: the range and number of the gains.
    tags: all, with their attributes.
  """

  def __init__(self, page):
    super().__init__()
    self.texts, self.calls, self.cells, self.bars = [], [], [], []
    self.tags, self._open = [], []
    self.feed(page)
    self.close()
    assert not self._open

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.tags.append((tag, attributes))
    kind = attributes.get('class', '').split()
    if tag not in VOID:
      self._open.append((tag, kind))
    for found, is_here in ((self.texts, kind == ['text']), (self.cells, tag == 'td'),
                           (self.calls, 'call' in kind and self._inside('text'))):
      found += [''] if is_here else []

  def handle_endtag(self, tag):
    assert self._open.pop()[0] == tag

  def handle_data(self, data):
    if self._inside('call') and self._inside('text'):
      self.calls[-1] += data
    elif self._inside('text'):
      self.texts[-1] += data
    elif self._open and self._open[-1][0] == 'td':
      self.cells[-1] += data
    elif [tag for tag, _ in self._open[-2:]] == ['rect', 'title']:
      self.bars.append(data)

  def _inside(self, kind):
    return any(kind in kinds for _, kinds in self._open)


def shown(path, address=''):
  run = LiveRun(path).read()
  query = parse(address, run.tools)
  return Shown(run_page(run, query, select(run, query), explains=False))


@given(st.lists(TEXTS, min_size=7, max_size=7), st.integers(0, 99))
def test_everything_is_shown_and_escaped(
    tmp_path_factory, write_run, scored, tokenizer, texts, place):
  text, title, name, argument, result, failure, other = texts
  documents = [Document(f'0{name}', text, title=title), Document(f'1{name}', other)]
  place %= len(tokenizer.encode(text)) + 1
  calls = [scored(f'0{name}', place, 0.75, argument, result=result),
           ExecutedCall(f'0{name}', 'Calculator', f'{argument}!', place, 0.5, None, failure),
           Candidate(f'1{name}', 'Calculator', argument, 0, 0.5)]
  path = write_run(tmp_path_factory.mktemp('run') / 'r', [documents], calls, {'Calculator': 0.5})
  page = shown(path)
  assert page.texts == [text, other]
  assert page.calls == [f'+0.75[Calculator({argument}) → {result}]', f'[Calculator({argument}!)]',
                        f'[Calculator({argument})]']
  assert f'no result: {failure}' in page.cells
  assert {tag for tag, _ in page.tags} <= TAGS
  assert [tag for tag, _ in page.tags].count('script') == 1
  assert not any(key.startswith('on') for _, attributes in page.tags for key in attributes)


@given(TEXTS, TEXTS)
def test_errors_are_escaped(title, message):
  assert {tag for tag, _ in Shown(error_page(title, message)).tags} <= TAGS


def test_losses_gain_and_verdict_of_each_call(tmp_path, write_run, scored):
  calls = [scored('a', 0, 1.5, '5'), scored('a', 0, 1.0, '6'), scored('a', 1, 0.25),
           scored('a', 2, 0.125, loss_call=None),
           ExecutedCall('a', 'Calculator', '7', 4, 0.5, '7')]
  path = write_run(tmp_path / 'run', [[Document('a', 'abcdef')]], calls, {'Calculator': 0.5})
  cells = shown(path).cells
  rows = [cells[i:i + 7] for i in range(0, len(cells), 7)]
  assert rows == [
    ['[Calculator(5) → 3]', '0.250', '3.00', '4.00', '1.50', '+1.50', 'kept'],
    ['[Calculator(6) → 3]', '0.250', '3.00', '4.00', '2.00', '+1.00',
     'rejected: another call gains more here'],
    ['[Calculator(1 + 2) → 3]', '0.250', '3.00', '4.00', '2.75', '+0.25', 'rejected'],
    ['[Calculator(1 + 2) → 3]', '0.250', '3.00', '–', '2.88', '≤ +0.12', 'rejected'],
    ['[Calculator(7) → 7]', '0.500', '', '', '', '', 'not scored yet'],
  ]


def test_pages_divide_the_texts(tmp_path, write_run, scored):
  count = 2 * TEXTS_PER_PAGE + 1
  documents = [Document(f'd{i}', f'text {i}') for i in range(count)]
  calls = [scored(document.id, 0, 1.0) for document in documents]
  path = write_run(tmp_path / 'run', [documents[:60], documents[60:]], calls, {'Calculator': 0.5})
  pages = [shown(path, f'page={number}') for number in (1, 2, 3)]
  assert [len(page.texts) for page in pages] == [TEXTS_PER_PAGE, TEXTS_PER_PAGE, 1]
  assert sum((page.texts for page in pages), []) == [document.text for document in documents]
  links = [[value['href'].partition('page=')[2] for tag, value in page.tags if tag == 'a']
           for page in pages]
  assert links == [['2', '2'], ['1', '3', '1', '3'], ['2', '2']]
  assert page_count([]) == 1


@pytest.mark.parametrize('max_texts, noted', [(1, True), (2, False)])
def test_a_cap_that_leaves_texts_out_is_told(tmp_path, write_run, scored, max_texts, noted):
  calls = [scored(name, 0, 1.0) for name in 'ab']
  path = write_run(tmp_path / 'run', [[Document('a', 'x'), Document('b', 'y')]], calls,
                   {'Calculator': 0.5}, max_texts=max_texts)
  run = LiveRun(path).read()
  page = run_page(run, parse('', run.tools), select(run, parse('', run.tools)),
                  explains=False)
  assert ('before all but 1 texts are left out' in page) == noted


def test_positions_without_a_sample_are_told_beside_what_a_lower_threshold_keeps(
    tmp_path, write_run, scored):
  path = write_run(
      tmp_path / 'run', [[Document('a', 'xyz'), Document('b', 'xyz')]], [scored('a', 0, 1.0)],
      {'Calculator': 0.75}, {('Calculator', name, at) for name in 'ab' for at in (1, 2)},
      min_loss_no_call=0.5)
  run = LiveRun(path).read()
  def page(fields=''):
    query = parse(fields, run.tools)
    return run_page(run, query, select(run, query), explains=False)
  assert 'no call was sampled at 4 positions, as none can gain 0.5 there' in page()
  at_most = 'and at most <output>{}</output> more, in <output>{}</output> more texts'
  assert at_most.format(0, 0) in page('tau_f.Calculator=0.5')
  assert at_most.format(4, 2) in page('tau_f.Calculator=0.4')


def test_form_shows_what_was_asked_for_and_works_without_a_script(tmp_path, write_run, scored):
  calls = [scored('a', 0, 1.0), scored('a', 0, 1.0, tool='WikiSearch')]
  path = write_run(tmp_path / 'run', [[Document('a', 'abc')]], calls,
                   {'Calculator': 0.5, 'WikiSearch': 0.75})
  page = shown(path, 'tool=Calculator&state=rejected&min_gain=-0.5&tau_f.Calculator=1.25')
  fields = {value['name']: value['value'] for tag, value in page.tags
            if tag == 'input' and 'name' in value}
  assert fields == {'tau_f.Calculator': '1.25', 'tau_f.WikiSearch': '0.75', 'min_gain': '-0.5'}
  chosen = [value['value'] for _, value in page.tags if 'selected' in value]
  assert chosen == ['Calculator', 'rejected']
  assert all('hidden' in value for _, value in page.tags if value.get('type') == 'range')


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(1, 300))
@example(1.0, 0.9, 9)
def test_ticks_cover_the_range_in_equal_steps(low, span, most):
  ticks = charts.ticks(low, low + span, most)
  assert ticks[0] <= low <= low + span < ticks[-1]
  assert ticks == sorted(set(ticks)) and len(ticks) <= most + 3
  steps = [high - low for low, high in itertools.pairwise(ticks)]
  assert max(steps) == pytest.approx(min(steps), rel=1e-4)


@given(st.lists(st.floats(-5, 5) | st.sampled_from([float('inf'), -1e300]), max_size=30),
       st.floats(-9, 9))
def test_histogram_counts_every_gain(gains, tau_f):
  tool = ToolGains('T', 0.5, math.inf, tuple(sorted(gains)), (), ())
  bars = charts.gain_histogram(tool, tau_f).bars
  counts = [bar.count for bar in bars]
  assert sum(counts) == sum(abs(gain) <= 5 for gain in gains)
  for bar in bars:
    assert bar.height == pytest.approx(max(2, 120 * bar.count / max(counts)), abs=0.1)


def test_every_bar_is_drawn_with_its_count(tmp_path, write_run, scored):
  calls = [scored('a', 0, gain, str(gain)) for gain in (-1.0, 0.25, 0.25, 2.0)]
  path = write_run(tmp_path / 'run', [[Document('a', 'abc')]], calls, {'Calculator': 0.5})
  tool, = LiveRun(path).read().tools
  bars = charts.gain_histogram(tool, 0.5).bars
  page = shown(path)
  drawn = [(value['class'], float(value['x']), float(value['height']))
           for tag, value in page.tags if tag == 'rect']
  assert drawn == [(charts.color_class((bar.low + bar.high) / 2), bar.x, bar.height)
                   for bar in bars]
  assert page.bars == [f'{bar.low:g} to {bar.high:g}: {bar.count} calls' for bar in bars]


@pytest.mark.parametrize('gain, grade', [
  (-2.0, 0), (-0.01, 4), (0.04, 4), (0.05, 5), (0.99, 7), (1.0, 8)])
def test_colors_go_from_worst_to_best(gain, grade):
  assert charts.color_class(gain) == f'g{grade}'
