"""What the client of OpenAI makes of each protocol; streamed, whole and generated texts are equal.
"""

import copy
import dataclasses
import json

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CompletionChoice

from toolformer_jax.calls import DEFAULT_SYNTAX, Call
from toolformer_jax.inference.scoring import ScoreRequest, score, score_texts
from toolformer_jax.inference.token_logprobs import TokenLogprobs
from toolformer_jax.serving import logprobs
from toolformer_jax.serving.messages import call_arguments, response_messages
from toolformer_jax.serving.protocol import McpCallItem
from toolformer_jax.tools.base import ToolError

WITH_CALL = ' [Up(ab) -> XY] XY.'
CALL = {'name': 'Up', 'arguments': 'ab', 'output': 'XY', 'error': None}
CHAT = [{'role': 'user', 'content': 'ab is'}]


@pytest.fixture(scope='module')
def client(server):
  return server.client()


@pytest.mark.parametrize('prompt', ['ab is', 'cd is', 'xy', 'ab is [Up(ab) -> XY]'])
@pytest.mark.parametrize('how', [{}, dict(temperature=0.9, seed=5), dict(stop=['Y.'])],
                         ids=['greedy', 'drawn', 'stopped'])
def test_a_text_streamed_is_the_text_whole_and_the_generated(client, generated, prompt, how):
  whole = client.completions.create(model='tiny', prompt=prompt, **how)
  pieces = list(client.completions.create(model='tiny', prompt=prompt, stream=True, **how))
  expected = generated(prompt, **{**how, 'stop': tuple(how.get('stop', ()))})
  assert whole.choices[0].text == expected.text
  assert ''.join(piece.choices[0].text for piece in pieces) == expected.text
  reasons = [piece.choices[0].finish_reason for piece in pieces]
  assert reasons[-1] == whole.choices[0].finish_reason == expected.finish_reason
  assert set(reasons[:-1]) == {None} or len(reasons) == 1


def test_calls_stand_in_the_text_and_are_listed(client):
  whole = client.completions.create(model='tiny', prompt='ab is').choices[0]
  assert whole.text == WITH_CALL and whole.toolformer_calls == [CALL]
  stream = client.completions.create(model='tiny', prompt='ab is', stream=True)
  told = [(piece.choices[0].text, calls) for piece in stream
          if (calls := getattr(piece.choices[0], 'toolformer_calls', None))]
  assert told == [(' [Up(ab) -> XY]', [CALL])]


def test_calls_are_left_out_of_the_text_on_demand(client):
  fields = dict(model='tiny', prompt='ab is', extra_body={'tools_in_text': False})
  whole = client.completions.create(**fields).choices[0]
  assert whole.text == ' XY.' and whole.toolformer_calls == [CALL]
  pieces = [piece.choices[0] for piece in client.completions.create(**fields, stream=True)]
  assert ''.join(piece.text for piece in pieces) == ' XY.'
  assert [calls for piece in pieces if (calls := getattr(piece, 'toolformer_calls', None))] == [
      [CALL]]


def test_a_chat_is_a_completion_of_its_prompt(client, generated):
  whole = client.chat.completions.create(model='tiny', messages=CHAT, max_tokens=6)
  expected = generated('User: ab is\nAssistant:', stop=('\nUser:',)).text
  assert whole.choices[0].message.content == expected
  assert whole.choices[0].message.tool_calls is None
  pieces = list(client.chat.completions.create(
      model='tiny', messages=CHAT, max_tokens=6, stream=True,
      stream_options={'include_usage': True}))
  assert ''.join(piece.choices[0].delta.content or '' for piece in pieces[:-1]) == expected
  assert pieces[0].choices[0].delta.role == 'assistant'
  assert pieces[-1].choices == [] and pieces[-1].usage == whole.usage
  assert pieces[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_usage_counts_tokens(client, taught):
  usage = client.completions.create(model='tiny', prompt='ab is').usage
  encode = taught.tokenizer.encode
  made = sum(len(encode(text)) for text in (' [Up(ab) ->', ' XY]', ' XY.'))
  assert (usage.prompt_tokens, usage.completion_tokens) == (len(encode('ab is')), made)
  assert usage.total_tokens == len(encode('ab is')) + made


def test_many_choices_are_told_apart(client, generated):
  fields = dict(model='tiny', prompt=['ab is', 'cd is'], n=2, seed=3, temperature=0.9)
  whole = client.completions.create(**fields)
  expected = [generated(prompt, temperature=0.9, seed=3 + i).text
              for i, prompt in enumerate(['ab is', 'ab is', 'cd is', 'cd is'])]
  assert [choice.text for choice in whole.choices] == expected
  assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]
  texts = [''] * 4
  for piece in client.completions.create(**fields, stream=True):
    texts[piece.choices[0].index] += piece.choices[0].text
  assert texts == expected


@pytest.mark.parametrize('chat', [False, True])
def test_a_stream_of_many_choices_has_their_logprobs_and_the_usage(client, chat):
  create, fields = ((client.chat.completions.create, {
      'messages': CHAT, 'logprobs': True, 'top_logprobs': 2}) if chat else (
          client.completions.create, {'prompt': ['ab is', 'cd is'], 'logprobs': 2, 'echo': True}))
  fields = {'model': 'tiny', 'n': 2, 'seed': 3, 'temperature': 0.9, 'max_tokens': 6, **fields}
  whole = create(**fields)
  pieces = list(create(**fields, stream=True, stream_options={'include_usage': True}))
  assert pieces[-1].choices == [] and pieces[-1].usage == whole.usage
  assert not any(piece.usage for piece in pieces[:-1])
  for choice in whole.choices:
    own = [piece.choices[0] for piece in pieces[:-1] if piece.choices[0].index == choice.index]
    same_logprobs(joined(own), choice.logprobs.model_dump())
    assert [piece.finish_reason for piece in own if piece.finish_reason] == [choice.finish_reason]
    text = ''.join(piece.delta.content or '' if chat else piece.text for piece in own)
    assert text == (choice.message.content if chat else choice.text)


def joined(pieces):
  """Returns the log-probabilities of all pieces of a streamed choice as one field."""
  found = {}
  for piece in pieces:
    for name, values in (piece.logprobs.model_dump() if piece.logprobs else {}).items():
      found[name] = found.get(name, []) + values if values is not None else None
  return found


def same_logprobs(one, other):
  """Checks that two fields have the same tokens, with the same numbers but for rounding."""
  if isinstance(one, dict):
    assert one.keys() == other.keys()
    for name, value in one.items():
      same_logprobs(value, other[name])
  elif isinstance(one, list):
    for mine, others in zip(one, other, strict=True):
      same_logprobs(mine, others)
  else:
    assert one == (pytest.approx(other, abs=1e-4) if isinstance(other, float) else other)


@pytest.mark.parametrize('tools_in_text', [True, False])
@pytest.mark.parametrize(('prompt', 'how'), [
    ('ab is', {}), ('xy', {}), ('xy', dict(temperature=1.5, seed=5, max_tokens=30)),
    ('ab is', dict(stop=['Y.'])), ('xy', dict(temperature=1.5, seed=6, max_tokens=60, stop='e'))])
def test_each_chunk_has_the_logprobs_of_its_tokens(client, prompt, how, tools_in_text):
  fields = dict(model='tiny', prompt=prompt, logprobs=2,
                extra_body={'tools_in_text': tools_in_text}, **how)
  whole = client.completions.create(**fields).choices[0]
  text, chunks = '', 0
  pieces = [piece.choices[0] for piece in client.completions.create(**fields, stream=True)]
  for piece in pieces:
    begin, text = len(text), text + piece.text
    if piece.logprobs:
      chunks += 1
      assert all(begin <= at < len(text) for at in piece.logprobs.text_offset)
  assert text == whole.text and (chunks > 1 or len(text) <= 4)  # a step makes four tokens
  same_logprobs(joined(pieces), whole.logprobs.model_dump())


@pytest.mark.parametrize('stream', [False, True])
def test_logprobs_are_those_of_the_scored_text(client, taught, stream):
  fields = dict(model='tiny', prompt='ab is', echo=True, logprobs=2, stream=stream)
  told = client.completions.create(**fields)
  if stream:
    pieces = [piece.choices[0] for piece in told]
    choice = CompletionChoice(index=0, finish_reason='stop', logprobs=joined(pieces),
                              text=''.join(piece.text for piece in pieces))
  else:
    choice = told.choices[0]
  assert choice.text == 'ab is' + WITH_CALL
  encode = taught.tokenizer.encode
  ids = [*encode('ab is'), *encode(' [Up(ab) ->'), *encode(' XY]'), *encode(' XY.')]
  logprobs = choice.logprobs
  assert ''.join(logprobs.tokens) == choice.text and len(logprobs.tokens) == len(ids)
  assert [choice.text[at:at + len(token)] for at, token in zip(
      logprobs.text_offset, logprobs.tokens, strict=True)] == logprobs.tokens
  [expected] = score(taught, [ScoreRequest((), tuple(ids), tuple(range(len(ids))))])
  assert logprobs.token_logprobs == pytest.approx(expected.tolist(), abs=1e-4)
  for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs,
                                 strict=True):
    assert len(top) <= 2 and max(top.values()) >= logprob - 1e-5
    assert token not in top or top[token] == pytest.approx(logprob, abs=1e-5)


def test_of_likely_tokens_that_look_alike_the_best_is_told(client, taught, monkeypatch):
  """Two parts of characters, neither of which is a character."""
  of_bytes = list(taught.tokenizer.token_bytes).index
  top = [(of_bytes(b'\xe6'), -1.0), (of_bytes(b'a'), -2.0), (of_bytes(b'\xe5'), -3.0)]
  monkeypatch.setattr(logprobs, 'top_logprobs', lambda model, tokens: [
      TokenLogprobs(token, -2.5, top) for token in tokens])
  told = client.completions.create(model='tiny', prompt='ab is', echo=True, max_tokens=0,
                                   logprobs=3).choices[0].logprobs.top_logprobs
  assert told == [{'\ufffd': -1.0, 'a': -2.0}] * 5


def test_a_prompt_alone_is_scored(client, taught):
  choice = client.completions.create(model='tiny', prompt='ab is', echo=True, max_tokens=0,
                                     logprobs=0).choices[0]
  assert choice.text == 'ab is' and choice.finish_reason == 'length'
  expected = score_texts(taught, ['ab is'])[0]
  assert len(choice.logprobs.token_logprobs) == len(expected['logprobs'])


def test_logprobs_of_a_chat_make_up_its_text(client):
  fields = dict(model='tiny', messages=CHAT, max_tokens=6, logprobs=True, top_logprobs=3)
  choice = client.chat.completions.create(**fields).choices[0]
  told = choice.logprobs.content
  assert b''.join(bytes(one.bytes) for one in told).decode() == choice.message.content
  assert all(len(one.top_logprobs) == 3 for one in told)
  streamed = [piece.choices[0] for piece in client.chat.completions.create(**fields, stream=True)]
  assert sum(piece.logprobs is not None for piece in streamed) > 1
  same_logprobs(joined(streamed), choice.logprobs.model_dump())
  for piece in streamed:
    if piece.logprobs:
      assert ''.join(one.token for one in piece.logprobs.content) == piece.delta.content


def test_logprobs_leave_out_calls_that_are_not_in_the_text(client):
  choice = client.completions.create(model='tiny', prompt='ab is', logprobs=0,
                                     extra_body={'tools_in_text': False}).choices[0]
  assert ''.join(choice.logprobs.tokens) == choice.text == ' XY.'


def items(response):
  def call(item):
    return item.name, json.loads(item.arguments)['argument'], item.output, item.error
  return [(item.type, item.content[0].text if item.type == 'message' else call(item))
          for item in response.output]


@pytest.fixture(scope='module')
def continuing(taught):
  """The taught model, with a template that lets the answer continue the last message."""
  tokenizer = copy.copy(taught.tokenizer)
  tokenizer.chat_template = '{{ messages[-1].content }}'
  return dataclasses.replace(taught, tokenizer=tokenizer)


@pytest.fixture(scope='module')
def calling(continuing, running):
  """A server whose answers call the tool."""
  with running(continuing) as server:
    yield server.client()


def test_a_response_has_calls_as_items(calling):
  response = calling.responses.create(model='tiny', input='ab is')
  assert items(response) == [('mcp_call', ('Up', 'ab', 'XY', None)), ('message', ' XY.')]
  assert response.status == 'completed' and response.output_text == ' XY.'


def test_a_streamed_response_tells_its_items_in_order(calling):
  with calling.responses.stream(model='tiny', input='ab is') as stream:
    events = list(stream)
    final = stream.get_final_response()
  kinds = [event.type.removeprefix('response.') for event in events]
  assert kinds == [
      'created', 'in_progress', 'output_item.added', 'mcp_call.in_progress',
      'mcp_call_arguments.delta', 'mcp_call_arguments.done', 'mcp_call.completed',
      'output_item.done', 'output_item.added', 'content_part.added', 'output_text.delta',
      'output_text.done', 'content_part.done', 'output_item.done', 'completed']
  assert [event.sequence_number for event in events] == list(range(len(events)))
  assert items(final) == [('mcp_call', ('Up', 'ab', 'XY', None)), ('message', ' XY.')]


def test_a_chat_that_continues_a_message_calls_too(calling):
  message = calling.chat.completions.create(
      model='tiny', messages=CHAT, max_tokens=6).choices[0].message
  assert message.content == WITH_CALL and message.toolformer_calls == [CALL]


def test_a_call_without_a_result_is_told_as_failed(continuing, running):
  def fail(argument):
    raise ToolError('broken')
  with running(continuing, fail) as server:
    create = server.client().responses.create
    response = create(model='tiny', input='ab is', max_output_tokens=6)
    kinds = [event.type.removeprefix('response.') for event in create(
        model='tiny', input='ab is', max_output_tokens=6, stream=True)]
    message = server.client().chat.completions.create(
        model='tiny', messages=CHAT, max_tokens=6).choices[0].message
  assert items(response)[0] == ('mcp_call', ('Up', 'ab', None, 'Up: broken'))
  assert 'mcp_call.failed' in kinds and 'mcp_call.completed' not in kinds
  assert message.toolformer_calls == [{**CALL, 'output': None, 'error': 'Up: broken'}]
  assert message.content == response.output_text and '[Up' not in message.content


def test_what_was_answered_can_be_asked_on(calling):
  first = calling.responses.create(model='tiny', input='ab is')
  again = calling.responses.create(
      model='tiny', input=[{'role': 'user', 'content': 'ab is'}, *first.output,
                           {'role': 'user', 'content': 'cd is'}])
  assert items(again) == [('mcp_call', ('Up', 'cd', 'ZW', None)), ('message', ' ZW.')]


ARGUMENTS = ['ab', '"ab"', '[1]', '{', '{}', '{"a": 1}', '{"argument": 1}', '{"argument": "x"}',
             '[' * 10**5]


@given(st.text() | st.sampled_from(ARGUMENTS))
def test_a_call_comes_back_as_it_was_made(argument):
  arguments = call_arguments(argument)
  assert isinstance(json.loads(arguments), dict)
  call = McpCallItem(type='mcp_call', name='Up', arguments=arguments, output='XY')
  try:
    expected = DEFAULT_SYNTAX.linearise(Call('Up', argument, 'XY'))
  except ValueError:  # no text can have such a call
    return
  assert response_messages([call], DEFAULT_SYNTAX, iter(())) == [
      {'role': 'assistant', 'content': expected}]


def test_a_prompt_of_a_template_may_fill_all_positions_but_one(calling):
  fields = dict(model='tiny', extra_body={'allowed_tools': []})
  chat = calling.chat.completions.create(
      messages=[{'role': 'user', 'content': 'a' * 239}], max_tokens=1, **fields)
  assert chat.usage.prompt_tokens == 239
  response = calling.responses.create(input='a' * 239, max_output_tokens=1, **fields)
  assert response.usage.input_tokens == 239
  with pytest.raises(openai.BadRequestError, match='The prompt has 240 tokens'):
    calling.responses.create(input='a' * 240, max_output_tokens=1, **fields)


def test_models_are_listed(client):
  [model] = client.models.list().data
  assert model.id == 'tiny' and client.models.retrieve('tiny').id == 'tiny'
  with pytest.raises(openai.NotFoundError, match='does not exist'):
    client.models.retrieve('other')
