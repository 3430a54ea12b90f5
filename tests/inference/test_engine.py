"""Generation with tools, on a tiny model that was taught to call one."""

import copy
import dataclasses
import functools
import gc
import threading

import jax
import numpy as np
import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.events import (
  CallFinished,
  CallStarted,
  NewText,
  RequestFinished,
  RequestStarted,
)
from toolformer_jax.inference.generation import generate
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.executor import Executor, ExecutorConfig
from toolformer_jax.tools.function import tool

from ..taught_model import ANSWERS

PROMPTS = ('ab is', 'cd is')


def broken(argument):
  raise ToolError('broken')


def running(answer, **limits):
  """An executor whose one tool answers by `answer`."""
  return Executor([tool(answer, name='Up')], ExecutorConfig(**limits))


def run(model, prompts=PROMPTS, answer=ANSWERS.get, on_text=None, slots=8, limits=None, **params):
  config = GenerationConfig(**{'max_tokens': 6, 'top_k_api': 1, **params})
  with running(answer, **(limits or {})) as executor:
    return generate(
        model, [model.tokenizer.encode(prompt) for prompt in prompts], config=config,
        engine_config=EngineConfig(slots), executor=executor, on_text=on_text)


def test_a_call_is_made_and_its_result_used(taught):
  for generated, (word, answer) in zip(run(taught), ANSWERS.items(), strict=True):
    assert generated.text == f' [Up({word}) -> {answer}] {answer}.'
    assert [(m.call.argument, m.call.result) for m in generated.calls] == [(word, answer)]


def test_the_result_is_the_tools_not_the_models(taught):
  generated = run(taught, answer=lambda argument: 'QQ')[0]
  assert generated.text.startswith(' [Up(ab) -> QQ]')


def test_what_is_decoded_is_what_was_trained_on(taught):
  encode = taught.tokenizer.encode
  expected = [*encode(' [Up(ab) ->'), *encode(' XY]'), *encode(' XY.')]
  assert run(taught)[0].token_ids == expected


def test_a_failed_call_is_taken_back(taught):
  generated = run(taught, answer=broken)[0]
  assert '[' not in generated.text and generated.text
  assert [(made.call.result, made.failure) for made in generated.calls] == [
      (None, 'Up: broken')]


@pytest.mark.parametrize('change', [{'disable_tools': True}, {'max_calls': 0}])
def test_no_call_where_there_shall_be_none(taught, change):
  asked = []
  for generated in run(taught, answer=lambda a: asked.append(a) or 'XY', **change):
    assert '[' not in generated.text and generated.calls == []
  assert asked == []


def test_one_call_an_input_at_most(taught):
  # Any token may start a call here, so that a second one would, were it allowed.
  for generated in run(taught, top_k_api=10**6, max_tokens=30):
    assert len(generated.calls) <= 1


def test_a_malformed_call_is_taken_back(make_model):
  model = make_model()
  generated = run(model, top_k_api=10**6, max_call_tokens=5, max_tokens=12)
  plain = run(model, disable_tools=True, max_tokens=12)
  assert [g.text for g in generated] == [p.text for p in plain]


@pytest.mark.parametrize('slots', [1, 2, 8])
def test_slots_change_nothing(taught, slots):
  prompts = PROMPTS * 4
  assert [g.text for g in run(taught, prompts, slots=slots)] == [
      g.text for g in run(taught, PROMPTS)] * 4


@pytest.mark.parametrize('size', [0, 1, 2, 3, 5, 7, 12])
@pytest.mark.parametrize('how', [
    {}, dict(temperature=0.8, top_p=0.9, seed=3),
    dict(top_k_api=3, max_calls=3, min_tokens=6, max_tokens=20)], ids=['greedy', 'drawn', 'calls'])
def test_a_result_is_read_the_same_in_any_company(taught, how, size):
  def texts(slots):
    return run(taught, PROMPTS * 10, lambda argument: 'QRSTUVWXYZab'[:size], slots=slots, **how)
  # By itself it is fed; beside others, decoding steps read it, or not if it is long for them.
  alone, together = texts(1), texts(16)
  assert [text.token_ids for text in together] == [text.token_ids for text in alone]
  assert sum(len(text.calls) for text in alone) >= 10


def test_a_prompt_without_tokens_is_refused(taught):
  tokenizer = copy.copy(taught.tokenizer)
  tokenizer.start_id = None
  model = dataclasses.replace(taught, tokenizer=tokenizer)
  with pytest.raises(UserError, match='prompt 1 has no token'):
    generate(model, [[5], []])


def test_a_waiting_row_does_not_stop_the_others(taught):
  released, order = threading.Event(), []
  def answer(argument):
    if argument == 'ab':
      assert released.wait(60)  # until the other text is through
    else:
      released.set()
    order.append(argument)
    return ANSWERS[argument]
  limits = {'time_limit_s': 100.0}
  texts = [generated.text for generated in run(taught, answer=answer, slots=2, limits=limits)]
  assert order == ['cd', 'ab']
  assert texts == [f' [Up({word}) -> {answer}] {answer}.' for word, answer in ANSWERS.items()]


@pytest.mark.parametrize(('size', 'max_tokens'), [(4, 10), (50, 100)])  # in one cache, and in three
def test_plain_decoding_is_greedy(make_model, size, max_tokens):
  model = make_model(max_positions=256)
  prompt = [5 + i * 37 % 200 for i in range(size)]
  got = generate(model, [prompt], config=GenerationConfig(max_tokens=max_tokens))[0].token_ids
  tokens = [model.tokenizer.start_id, *prompt]
  for _ in range(max_tokens):
    padded = np.zeros((1, 256), np.int32)
    padded[0, :len(tokens)] = tokens
    tokens.append(int(_argmax(model.decoder, model.variables, padded)[len(tokens) - 1]))
  expected = tokens[1 + size:]
  ends = [i for i, token in enumerate(expected) if token in model.tokenizer.end_ids]
  assert got == expected[:ends[0] if ends else None]


def test_a_long_result_is_read_whole(taught):
  prompt, long = PROMPTS[0], 'XY' * 300
  made = run(taught, [prompt], answer=lambda argument: long, max_tokens=2,
             limits={'max_result_chars': 1000})[0]
  encode = taught.tokenizer.encode
  assert made.token_ids[:-2] == [*encode(' [Up(ab) ->'), *encode(f' {long}]')]
  before = [taught.tokenizer.start_id, *encode(prompt), *made.token_ids[:-2]]
  padded = np.zeros((1, 1024), np.int32)
  padded[0, :len(before)] = before
  assert made.token_ids[-2] == _argmax(taught.decoder, taught.variables, padded)[len(before) - 1]


@pytest.mark.parametrize('max_calls', [1, 2, 3])
def test_as_many_calls_as_are_allowed(taught, max_calls):
  asked = []
  texts = run(taught, answer=lambda a: asked.append(a) or 'a', top_k_api=10**6,
              max_calls=max_calls, max_tokens=12)
  assert max(len(generated.calls) for generated in texts) == max_calls
  for generated in texts:
    assert generated.text.count(' -> a]') == len(generated.calls)
  assert sorted(asked) == sorted(made.call.argument for text in texts for made in text.calls)


@pytest.mark.parametrize('contexts', [None, [Context('a')] * 2])
def test_what_a_call_made_can_be_named_by_later_calls_of_its_own_text(taught, tmp_path, contexts):
  (tmp_path / 'a.png').write_bytes(b'\x89PNG\r\n\x1a\n')
  def draw(argument, context):
    return context.media.add(tmp_path / 'a.png')
  with running(draw) as executor:
    texts = generate(
        taught, [taught.tokenizer.encode(prompt) for prompt in PROMPTS], contexts=contexts,
        executor=executor,
        config=GenerationConfig(top_k_api=10**6, max_calls=3, max_tokens=12))
  results = [[made.call.result for made in generated.calls] for generated in texts]
  assert max(map(len, results)) == 3
  for one in results:
    assert one == [f'image {number}' for number in range(1, len(one) + 1)]


# A tool that does this for one text, and what then becomes of the text's call.
def hang(argument):
  threading.Event().wait(5)  # ten times its time limit
  return 'late'


def fail(argument):
  raise RuntimeError('broken')


@pytest.mark.parametrize(('trouble', 'failure'), [
    (hang, 'Up: time limit: no result within 0.5 seconds'), (fail, 'Up: RuntimeError: broken'),
    (lambda argument: 'y' * 10**7, None)], ids=['hangs', 'raises', 'returns megabytes'])
def test_a_tool_in_trouble_costs_its_own_text_alone(taught, trouble, failure):
  prompts = PROMPTS * 2
  without = run(taught, prompts)
  generated = run(taught, prompts, lambda a: trouble(a) if a == 'ab' else ANSWERS[a], slots=2,
                  limits={'time_limit_s': 0.5, 'max_result_chars': 20})
  assert generated[1::2] == without[1::2]
  for text in generated[::2]:
    [made] = text.calls
    if failure:
      assert (made.call.result, made.failure) == (None, failure)
      assert text == dataclasses.replace(
          run(taught, PROMPTS[:1], disable_tools=True)[0], calls=text.calls)
    else:
      assert made.call.result == 'y' * 20
      assert text.text.startswith(f' [Up(ab) -> {"y" * 20}]')


def collect(pieces):
  return lambda request, piece: pieces.setdefault(request, []).append(piece)


@pytest.mark.parametrize('result', ['XY', None])
def test_pieces_of_texts_with_calls_make_them_up(taught, result):
  pieces = {}
  texts = run(taught, answer=(lambda a: result) if result else broken, on_text=collect(pieces))
  assert [''.join(pieces[i]) for i in range(2)] == [generated.text for generated in texts]
  if result:
    assert pieces[0][0] == f' [Up(ab) -> {result}]'  # at once, and not before


def test_a_text_ends_before_a_stop_string(taught):
  stopped = run(taught, stop=('Y.', 'W.'))
  assert [generated.text for generated in stopped] == [' [Up(ab) -> XY] X', ' [Up(cd) -> ZW] Z']


@pytest.mark.parametrize('least', [1, 3, 6])
def test_a_text_does_not_end_by_itself_before_its_least_tokens(taught, least):
  said = ['ab is [Up(ab) -> XY] XY.']
  assert run(taught, said)[0].token_ids == []
  for slots in (1, 4):
    made = run(taught, [*said, *PROMPTS], min_tokens=least, slots=slots)
    assert len(made[0].token_ids) >= least and taught.tokenizer.eos_id not in made[0].token_ids
    # Those of a call do not count.
    assert made[1].text.startswith(' [Up(ab) -> XY] XY.')
    assert len(made[1].token_ids) >= len(taught.tokenizer.encode(' [Up(ab) -> XY]')) + least


@functools.partial(jax.jit, static_argnums=0)
def _argmax(decoder, variables, tokens_1T):
  return decoder.apply(variables, tokens_1T)[0][0].argmax(-1)


def add(engine, model, prompt, **params):
  return engine.add_request(model.tokenizer.encode(prompt),
                            GenerationConfig(**{'max_tokens': 6, 'top_k_api': 1, **params}))


def finish(engine):
  """Steps until nothing is left; returns the outputs by request, and all events."""
  events = []
  while engine.has_unfinished_requests():
    events += engine.step()
  outputs = {event.request_id: event.output for event in events
             if isinstance(event, RequestFinished)}
  return outputs, events


def test_events_tell_a_text_in_its_order(taught):
  with running(ANSWERS.get) as executor:
    engine = Engine(taught, executor=executor)
    number = add(engine, taught, 'ab is')
    outputs, events = finish(engine)
  assert {event.request_id for event in events} == {number}
  kinds = [type(event) for event in events]
  assert kinds[:3] == [RequestStarted, CallStarted, CallFinished]
  assert kinds[-1] is RequestFinished
  assert kinds.count(RequestFinished) == 1
  assert ''.join(e.text for e in events if isinstance(e, NewText)) == outputs[number].text
  assert events[0] == RequestStarted(number, len(taught.tokenizer.encode('ab is')) + 1, None)
  assert events[2].call == outputs[number].calls[0]


def test_requests_may_come_while_others_decode(taught):
  expected = run(taught, PROMPTS * 3, max_tokens=20)
  with running(ANSWERS.get) as executor:
    engine = Engine(taught, EngineConfig(slots=2), executor)
    numbers, events = [], []
    for prompt in PROMPTS * 3:
      numbers.append(add(engine, taught, prompt, max_tokens=20))
      events += engine.step()
    outputs, later = finish(engine)
  outputs |= {e.request_id: e.output for e in events if isinstance(e, RequestFinished)}
  assert [outputs[number] for number in numbers] == expected


def test_every_request_has_its_own_params(taught):
  mixed = [dict(), dict(temperature=0.9, seed=5), dict(temperature=0.9, seed=6, top_p=0.7),
           dict(stop=('Y.',)), dict(max_tokens=2), dict(disable_tools=True), dict(min_tokens=5)]
  with running(ANSWERS.get) as executor:
    engine = Engine(taught, EngineConfig(slots=8), executor)
    together = [add(engine, taught, 'ab is', **params) for params in mixed]
    outputs, _ = finish(engine)
  alone = [run(taught, ['ab is'], **params)[0] for params in mixed]
  assert [outputs[number] for number in together] == alone


@pytest.mark.parametrize('steps', [0, 1, 2])
def test_an_aborted_request_leaves_its_row_to_the_next(taught, steps):
  released = threading.Event()
  def answer(argument):
    assert argument != 'ab' or released.wait(60)
    return ANSWERS[argument]
  with running(answer, time_limit_s=100.0) as executor:
    engine = Engine(taught, EngineConfig(slots=1), executor)
    aborted, other = add(engine, taught, 'ab is'), add(engine, taught, 'cd is')
    for _ in range(steps):  # it waits, decodes, or its tool runs
      engine.step()
    engine.abort(aborted)
    outputs, events = finish(engine)
    released.set()
  assert list(outputs) == [other] and outputs[other].text == ' [Up(cd) -> ZW] ZW.'
  assert all(event.request_id == other for event in events)


def test_an_engine_whose_requests_were_all_aborted_holds_no_memory(taught):
  engine = Engine(taught, EngineConfig(slots=2))
  def begin_and_abort():
    number = add(engine, taught, 'xy', max_tokens=20, min_tokens=20)
    engine.step()
    held = len(jax.live_arrays())
    engine.abort(number)
    assert engine.step() == []
    gc.collect()
    return held, len(jax.live_arrays())
  begin_and_abort()
  before = len(jax.live_arrays())
  held, after = begin_and_abort()
  assert after <= before < held


def test_an_idle_engine_takes_requests_again(taught):
  with running(ANSWERS.get) as executor:
    engine = Engine(taught, executor=executor)
    texts = []
    for _ in range(2):
      add(engine, taught, 'ab is')
      outputs, _ = finish(engine)
      texts += [output.text for output in outputs.values()]
  assert engine.step() == [] and texts == [' [Up(ab) -> XY] XY.'] * 2


def test_an_abort_of_no_unfinished_request_is_ignored(taught):
  engine = Engine(taught)
  number = add(engine, taught, 'ab is', max_tokens=2)
  engine.abort(number + 1)
  outputs, _ = finish(engine)
  engine.abort(number)
  assert list(outputs) == [number] and not engine.has_unfinished_requests()


@pytest.mark.parametrize('ids', [[5, 10**6], [-1], [1.5], 'ab', [None]])
def test_what_is_no_token_id_is_refused_and_leaves_the_engine_as_it_was(taught, ids):
  engine = Engine(taught)
  number = add(engine, taught, 'ab is', max_tokens=2)
  with pytest.raises(UserError, match='is not a token id'):
    engine.add_request(ids)
  assert list(finish(engine)[0]) == [number]


@pytest.mark.parametrize(('options', 'error'), [
    ({'seeds': [1]}, 'as many seeds as prompts: 2, not 1'),
    ({'contexts': []}, 'as many contexts as prompts: 2, not 0'),
    ({'seeds': [1, -1]}, 'seed must be between'),
    ({'seeds': [1, 'x']}, 'seed must be of type int')])
def test_seeds_and_contexts_are_checked(taught, options, error):
  with pytest.raises(UserError, match=error):
    generate(taught, [[5], [6]], **options)


def test_a_prompt_that_is_too_long_is_refused(make_model):
  with pytest.raises(UserError, match='has 129 tokens, more than the 128 that the model'):
    Engine(make_model()).add_request([5] * 128)


def test_a_request_may_call_fewer_tools_than_the_engine(taught):
  with running(ANSWERS.get) as executor:
    engine = Engine(taught, executor=executor)
    params = GenerationConfig(max_tokens=6, top_k_api=1)
    ids = taught.tokenizer.encode('ab is')
    free, bound = (engine.add_request(ids, params, tool_names=names) for names in (['Up'], []))
    outputs, _ = finish(engine)
    with pytest.raises(UserError, match="unknown tool 'Down': choose from Up"):
      engine.add_request(ids, params, tool_names=['Down'])
  assert len(outputs[free].calls) == 1 and outputs[bound].calls == []


def test_a_prompt_is_taken_as_it_is_where_it_shall_be(taught):
  engine = Engine(taught)
  ids = taught.tokenizer.encode('ab is')
  params = GenerationConfig(max_tokens=4)
  whole = engine.add_request([taught.tokenizer.start_id, *ids], params, add_start_token=False)
  usual = engine.add_request(ids, params)
  outputs, _ = finish(engine)
  assert outputs[whole] == outputs[usual]
  with pytest.raises(UserError, match='no token'):
    engine.add_request([], add_start_token=False)


@pytest.mark.parametrize(('params', 'reason'), [
    (dict(), 'stop'), (dict(stop=('Y.',)), 'stop'), (dict(max_words=1), 'stop'),
    (dict(max_tokens=2), 'length')])
def test_it_is_told_why_a_text_ended(taught, params, reason):
  assert run(taught, ['ab is'], **{'max_tokens': 9, **params})[0].finish_reason == reason


def test_a_text_ends_at_the_longest_length_of_the_engine(taught):
  engine = Engine(taught, EngineConfig(max_model_len=12))
  number = add(engine, taught, 'ab is', max_tokens=100, min_tokens=100)
  outputs, _ = finish(engine)
  assert outputs[number].finish_reason == 'length'
  assert 1 + 5 + len(outputs[number].token_ids) == 12


def test_a_call_without_room_for_its_result_is_told_as_failed(taught):
  results = set()
  for max_model_len in range(12, 32):
    with running(ANSWERS.get) as executor:
      engine = Engine(taught, EngineConfig(max_model_len=max_model_len), executor)
      number = add(engine, taught, 'ab is')
      outputs, events = finish(engine)
    calls = [event.call for event in events if isinstance(event, CallFinished)]
    assert calls == outputs[number].calls
    for made in calls:
      assert (made.call.result is None) == (made.failure is not None)
      results.add(made.call.result)
  assert results == {None, 'XY'}


def test_pieces_of_calls_are_told_apart(taught):
  with running(ANSWERS.get) as executor:
    engine = Engine(taught, executor=executor)
    add(engine, taught, 'ab is', stop=(']!',))  # the end of a call is no beginning of it
    _, events = finish(engine)
  pieces = [event for event in events if isinstance(event, NewText)]
  assert [piece.text for piece in pieces if piece.is_call] == [' [Up(ab) -> XY]']
  assert ''.join(piece.text for piece in pieces if not piece.is_call) == ' XY.'
