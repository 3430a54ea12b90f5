"""In a real browser: the slider counts, nothing in a record runs, and the page fits its window."""

import threading

import pytest

from toolformer_jax.annotation.merge import merge
from toolformer_jax.data.records import Document, ExecutedCall, ScoredCall
from toolformer_jax.view.data import LiveRun
from toolformer_jax.view.server import make_server

TEXTS = (
    'Five and six make eleven.', '<script>broken = 1</script> & <img src=x onerror="broken=1">',
    'Nine.\n\n  Äñ €', 'wide' * 200)
DOCUMENTS = [Document(f'd{i}', text) for i, text in enumerate(TEXTS)]
TAU_F = {'Calculator': 0.5, 'WikiSearch': 1.0}
SET_SLIDER = """
  const slider = document.querySelector('[data-tool=Calculator] input[type=range]');
  slider.value = %d; slider.dispatchEvent(new Event('input')); """
READ = """
  ({threshold: Number(document.querySelector('[data-tool=Calculator] input[type=number]').value),
    counts: [...document.querySelectorAll('[data-tool=Calculator] output')].map(
      (output) => Number(output.textContent)),
    chips: document.querySelectorAll('.text .kept[data-tool=Calculator]').length,
    cells: [...document.querySelectorAll('td.kept[data-tool=Calculator]')].filter(
      (cell) => cell.textContent === 'kept').length})"""


@pytest.fixture(scope='module')
def calls(scored):
  gains = [(0, 0, 0.75), (0, 0, 0.6), (0, 3, -0.25), (1, 2, 1.5), (1, 5, 0.5), (2, 1, 0.1)]
  others = [scored('d3', 8, 1.25, '"x"', 'WikiSearch', '<img src=x onerror="broken=1"> ' * 20),
            ExecutedCall('d0', 'Calculator', '1/0', 2, 0.5, None, 'division <b>by zero</b>')]
  return [scored(f'd{text}', position, gain, f'{gain}') for text, position, gain in gains] + others


@pytest.fixture(scope='module')
def address(tmp_path_factory, write_run, calls):
  path = write_run(tmp_path_factory.mktemp('browser') / 'run', [DOCUMENTS], calls, TAU_F)
  with make_server(LiveRun(path), 0) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()
    thread.join()


def kept(calls, tau_f):
  """Returns how many calls and texts of the calculator merging keeps."""
  own = [call for call in calls if isinstance(call, ScoredCall) and call.tool == 'Calculator']
  merged, _ = merge(DOCUMENTS, own, {'Calculator': tau_f})
  return [sum(len(record.calls) for record in merged), len(merged)]


def test_slider_shows_what_merging_keeps(browser, address, calls):
  browser.open(address)
  before = browser.evaluate(READ)
  assert (before['threshold'], before['counts']) == (0.5, kept(calls, 0.5))
  last = int(browser.evaluate("document.querySelector('[data-tool=Calculator] input').max"))
  seen = []
  for step in [*range(0, last, 3), last]:
    now = browser.evaluate(SET_SLIDER % step + READ)
    expected = kept(calls, now['threshold'])
    assert now['counts'] == expected
    assert (now['chips'], now['cells']) == (expected[0], expected[0])
    seen.append(expected[0])
  assert seen[0] == 5 and seen[-1] == 0 and len(set(seen)) >= 5
  assert browser.complaints == []


def test_a_threshold_that_is_typed_is_asked_for(browser, address, calls):
  browser.open(address)
  browser.evaluate("""const field = document.querySelector('input[type=number]');
                      field.value = 0.55; field.dispatchEvent(new Event('change'));""")
  browser.wait_for_load()
  assert 'tau_f.Calculator=0.55' in browser.evaluate('location.href')
  now = browser.evaluate(READ)
  assert (now['threshold'], now['counts']) == (0.55, kept(calls, 0.55))
  assert browser.complaints == []


@pytest.mark.parametrize('scripts', [True, False])
def test_nothing_in_a_record_is_markup(browser, address, scripts):
  browser.open(address, scripts=scripts)
  browser.tell('Emulation.setScriptExecutionDisabled', value=False)
  assert browser.evaluate('typeof broken') == 'undefined'
  assert browser.evaluate("document.querySelectorAll('img, td b, article script').length") == 0
  texts = browser.evaluate("""
    for (const call of document.querySelectorAll('.text .call')) call.remove();
    [...document.querySelectorAll('.text')].map((text) => text.textContent)""")
  assert texts == list(TEXTS)
  sliders = browser.evaluate("""
    [...document.querySelectorAll('[type=range]')].map((slider) => slider.checkVisibility())""")
  assert sliders == [scripts] * 2


def test_colours_go_from_red_to_green(browser, address):
  browser.open(address)
  best, worst = browser.evaluate("""
    const legend = [...document.querySelectorAll('main > p .call')];
    [legend[0], legend[3]].map((chip) => getComputedStyle(chip).borderColor.match(/\\d+/g))""")
  assert int(best[1]) > 2 * int(best[0]) and int(worst[0]) > 2 * int(worst[1])


@pytest.mark.parametrize('width', [320, 480, 1280])
def test_the_page_is_no_wider_than_its_window(browser, address, width):
  browser.open(address, width=width)
  assert browser.evaluate('document.documentElement.scrollWidth') <= width
