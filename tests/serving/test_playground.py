"""The page in a real browser: the stream appears, calls are marked, and losses are shown."""

import base64
import json
import os
import pathlib
import time

import pytest

READ = """
  ({status: document.getElementById('status').textContent,
    text: document.getElementById('text').textContent,
    calls: [...document.querySelectorAll('#text .call')].map((span) => span.textContent),
    list: [...document.querySelectorAll('#calls li')].map((item) => item.textContent),
    losses: [...document.querySelectorAll('#text [class^=loss]')].map((span) => span.title)})"""


@pytest.fixture
def page(browser, server):
  browser.open(f'{server.url}/')
  yield browser
  assert browser.complaints == []


def submit(page, prompt, tools=True):
  page.evaluate(f"""
    document.querySelector('textarea').value = {json.dumps(prompt)};
    for (const box of document.querySelectorAll('[name=tool]')) box.checked = {json.dumps(tools)};
    document.querySelector('[type=submit]').click();""")
  return wait(page, lambda now: now['status'].startswith('finished'))


def wait(page, wanted):
  until = time.monotonic() + 30
  while not wanted(now := page.evaluate(READ)):
    assert time.monotonic() < until, now
    time.sleep(0.05)
  return now


def test_a_call_is_marked_in_the_stream(page):
  now = submit(page, 'ab is')
  assert now['text'] == 'ab is [Up(ab) -> XY] XY.'
  assert now['calls'] == [' [Up(ab) -> XY]'] and now['list'] == ['Up(ab) → XY']
  if folder := os.environ.get('TOOLFORMER_SCREENSHOTS'):
    picture = page.tell('Page.captureScreenshot', format='png', clip={
        'x': 220, 'y': 0, 'width': 840, 'height': 440, 'scale': 1})['data']
    pathlib.Path(folder, 'playground.png').write_bytes(base64.b64decode(picture))


def test_tools_can_be_turned_off(page):
  now = submit(page, 'ab is', tools=False)
  assert now['calls'] == now['list'] == [] and now['text'].startswith('ab is')


def test_losses_of_tokens_are_shown_on_demand(page):
  text = submit(page, 'ab is')['text']
  page.evaluate("document.querySelector('[name=losses]').click()")
  now = wait(page, lambda now: now['losses'])
  assert now['text'] == text
  assert all(float(loss) >= 0 for loss in now['losses'])


def test_what_is_typed_is_no_markup(page):
  prompt = '<img src=x onerror="broken = 1"><script>broken = 1</script>'
  now = submit(page, prompt, tools=False)
  assert now['text'].startswith(prompt)
  assert page.evaluate('typeof broken') == 'undefined'
  assert page.evaluate("document.querySelectorAll('#text img, #text script').length") == 0


def test_an_error_is_told(page):
  page.evaluate("""
    document.querySelector('textarea').value = 'a'.repeat(1000);
    document.querySelector('[type=submit]').click();""")
  assert 'maximum context length' in wait(page, lambda now: 'context' in now['status'])['status']
  page.complaints.clear()  # the browser logs responses of status 400


@pytest.mark.parametrize('width', [320, 1280])
def test_the_page_is_no_wider_than_its_window(browser, server, width):
  browser.open(f'{server.url}/', width=width)
  assert browser.evaluate('document.documentElement.scrollWidth') <= width
