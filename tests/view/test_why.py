"""The page about one call says what `token_losses` says, for calls of the run alone."""

import html
import re
import threading

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from toolformer_jax import cli
from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.annotation.token_losses import token_losses
from toolformer_jax.calls import Call
from toolformer_jax.checkpoints.any_model import model_fingerprint
from toolformer_jax.checkpoints.orbax import save_model
from toolformer_jax.commands import view
from toolformer_jax.data.records import Document, ExecutedCall
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.view.data import LiveRun
from toolformer_jax.view.pages import CONTENT_SECURITY_POLICY
from toolformer_jax.view.server import respond
from toolformer_jax.view.why import one_at_a_time

TEXT = 'One <b>two</b> € three.'


@pytest.fixture(scope='module')
def live_run(tmp_path_factory, write_run, scored):
  calls = [scored('a & b', 4, 1.5), scored('a & b', 4, 0.5, argument='1 / [2] & "€"'),
           ExecutedCall('a & b', 'Calculator', '7', 7, 0.25, None, 'it has no result')]
  return LiveRun(write_run(tmp_path_factory.mktemp('why') / 'run',
                           [[Document('a & b', TEXT)]], calls, {'Calculator': 0.5}))


@pytest.fixture(scope='module')
def explain(make_model):
  model = make_model()
  return lambda text, call, position: token_losses(
      model, text, call=f' [{call.name}({call.argument}) -> {call.result}]', position=position)


def links(page):
  return [html.unescape(found) for found in re.findall(r'href="(/why[^"]*)"', page)]


def test_calls_with_a_result_have_a_page_if_there_is_a_model(live_run, explain):
  _, without = respond(live_run, 'localhost', '/')
  _, page = respond(live_run, 'localhost', '/', explain)
  assert (links(without), len(links(page))) == ([], 2)
  assert respond(live_run, 'localhost', links(page)[0])[0] == 404


def test_a_page_has_the_losses_of_every_token_after_the_call(live_run, explain):
  _, page = respond(live_run, 'localhost', '/', explain)
  status, page = respond(live_run, 'localhost', links(page)[0], explain)
  rows = [[html.unescape(re.sub('<.*?>', '', cell)) for cell in re.findall('<td.*?</td>', row)]
          for row in re.findall('<tr>(?s:.*?)</tr>', page)][1:]
  losses = explain(TEXT, Call('Calculator', '1 + 2', '3'), 4)
  assert status == 200
  assert [[cell.strip() for cell in row] for row in rows] == [
      [token.strip(), f'{weight:.2f}' if weight else '', f'{no_call:.2f}', f'{no_result:.2f}',
       f'{with_result:.2f}', f'{share:+.2f}' if weight else '', f'{100 * attention:.1f}%']
      for token, weight, no_call, no_result, with_result, share, attention in list(zip(
          losses.tokens, losses.weights, losses.no_call, losses.no_result, losses.with_result,
          losses.gain_shares, losses.attention, strict=True))[4:]]
  assert f'{losses.gain:.2f} nats' in page
  shown, = re.findall('<p class="text"(?s:.*?)</p>', page)
  shown = html.unescape(re.sub('<b>.*?</b>|<.*?>', '', shown))
  assert shown == TEXT[:4] + '[Calculator(1 + 2) → 3]' + TEXT[4:]


def test_the_texts_of_a_page_are_escaped(live_run, explain):
  _, page = respond(live_run, 'localhost', '/', explain)
  _, page = respond(live_run, 'localhost', links(page)[0], explain)
  assert '<b>two' not in page and 'script-src' in CONTENT_SECURITY_POLICY


@pytest.mark.parametrize('target', [
  '/why', '/why?text=a+%26+b', '/why?text=a+%26+b&position=4&tool=Calculator&argument=2',
  '/why?text=a+%26+b&position=7&tool=Calculator&argument=7',  # it has no result
  '/why?text=none&position=4&tool=Calculator&argument=1+%2B+2', '/why?' + 'a=b&' * 1000])
def test_other_calls_are_not_explained(live_run, explain, target):
  status, page = respond(live_run, 'localhost', target, explain)
  assert (status, 'there is no such call with a result' in page) == (404, True)


def test_a_call_that_cannot_be_explained_says_why(live_run):
  def explain(text, call, position):
    raise UserError('the text is too long')
  _, page = respond(live_run, 'localhost', '/', explain)
  for link in links(page):
    status, page = respond(live_run, 'localhost', link, explain)
    assert (status, 'the text is too long' in page) == (500, True)


def test_another_host_gets_nothing(live_run, explain):
  _, page = respond(live_run, 'localhost', '/', explain)
  assert respond(live_run, 'evil.example', links(page)[0], explain)[0] == 403


def test_the_model_is_asked_by_one_thread_and_once_for_a_call():
  running, asked = threading.Semaphore(1), []
  def explain(text, call, position):
    assert running.acquire(blocking=False)
    asked.append(text)
    running.release()
  shared = one_at_a_time(explain)
  threads = [threading.Thread(target=shared, args=(text, None, 0)) for text in 'abab' * 8]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(asked) == ['a', 'b']


def test_the_command_asks_the_model_of_the_run(live_run, explain, make_model, tmp_path):
  save_model(tmp_path / 'model', make_model())
  asked = view.model_losses(str(tmp_path / 'model'), live_run)
  call = Call('Calculator', '1 + 2', '3')
  assert asked(TEXT, call, 4).no_call == pytest.approx(explain(TEXT, call, 4).no_call, rel=1e-5)
  with pytest.raises(UserError, match='cannot be written as an API call'):
    asked(TEXT, Call('Calculator', '1)', '3'), 4)


def test_a_model_with_another_tokenizer_is_refused(live_run):
  other = Tokenizer.byte_level_bpe([*sorted(ByteLevel.alphabet())], [], [], split_digits=True,
                                   bos_id=None, eos_id=None)
  with pytest.raises(UserError, match='another tokenizer; give the model of the run'):
    live_run.check_tokenizer(other)


def test_another_model_with_the_same_tokenizer_is_refused(make_model, tokenizer, tmp_path):
  model = str(tmp_path / 'model')
  save_model(tmp_path / 'model', make_model())
  def ask(name, fingerprint):
    configuration = {'tools': {'Calculator': {'tau_f': 0.5}}, 'checkpoint': fingerprint}
    with RunFolder(tmp_path / name, configuration, {}):
      tokenizer.save(tmp_path / name)
    return view.model_losses(model, LiveRun(tmp_path / name))
  assert callable(ask('same', model_fingerprint(model)))
  with pytest.raises(UserError, match='another model; give the model of the run as --checkpoint'):
    ask('other', '0')


def test_a_model_that_is_not_there_is_told_at_once(tmp_path, capsys):
  code = cli.main(['view', str(tmp_path), '--checkpoint', 'smollm3'])
  assert (code, "unknown model 'smollm3'" in capsys.readouterr().err) == (2, True)
