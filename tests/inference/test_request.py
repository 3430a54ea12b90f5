"""A text that is being continued ends, calls and is told the same, however its tokens arrive."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer_jax.calls import DEFAULT_SYNTAX, Call
from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.request import (
  DecodingContext,
  GeneratedText,
  GenerationRequest,
  ToolCall,
)
from toolformer_jax.inference.token_logprobs import TextOffsets, TokenLogprobs

PROMPT = [3, 1, 4]
MADE_UP = 0
TEXTS = st.text('abE\n .é漢🙂', max_size=24)
NOISE = st.lists(st.integers(0, 255), max_size=20)
CHUNKS = st.lists(st.integers(1, 9), min_size=1, max_size=6)  # sizes, over and over
RESULTS = st.one_of(st.none(), st.text('ab é', max_size=5))
OPENINGS = st.one_of(
    st.text('ab é()', max_size=6).map(lambda argument: f' [Up({argument}) ->'),
    st.sampled_from([' [Up ab', ' [Down(a) ->', ' [Up(a)]', ' [Up(a\n', ' [' + 'x' * 40]))


def begin(tokenizer, names=(), max_model_len=100_000, with_logprobs=False, **changes):
  params = GenerationConfig(**{'max_tokens': 1000, 'max_call_tokens': 20, **changes})
  api_id = tokenizer.single_id(DEFAULT_SYNTAX.start)
  context = DecodingContext(tokenizer, DEFAULT_SYNTAX, frozenset(names), api_id, max_model_len)
  return GenerationRequest(context, 0, PROMPT, params, with_logprobs=with_logprobs)


@dataclasses.dataclass
class Writer:
  """Stands in for the model: its next tokens follow from those so far, as far as they are kept.

  Attributes:
    plain: the tokens outside of calls, in their order.
    openings: by the number of plain tokens before it, the tokens of a call.
    answered: tokens of the calls that have an answer.
    open_at: index of the token at which a call was opened.
  """

  plain: list[int]
  openings: dict[int, list[int]]
  answered: int = 0
  open_at: int | None = None

  def write(self, text: GenerationRequest, size: int) -> list[int]:
    """Returns the next tokens; those after a call's opening in it, and after all, are made up."""
    if self.open_at is not None and len(text.tokens) <= self.open_at:
      self.open_at = None  # removed
    inside = 0 if self.open_at is None else len(text.tokens) - self.open_at
    at, new = len(text.tokens) - self.answered - inside, []
    while len(new) < size:
      if not inside and text.may_start_call and at in self.openings:
        self.open_at = len(text.tokens) + len(new)
      if inside or self.open_at == len(text.tokens) + len(new):
        new += [*self.openings[at], *[MADE_UP] * 1000][inside:inside + size]
      else:
        new.append(self.plain[at] if at < len(self.plain) else MADE_UP)
        at += 1
    return new[:size]


def told(text):
  """Returns the new pieces as one text; those of calls are calls."""
  pieces = text.new_pieces()
  assert all(piece.is_call == piece.text.startswith(' [Up(') for piece in pieces)
  return ''.join(piece.text for piece in pieces)


def play(text, writer, chunks, results=None):
  """Continues until the text is done; returns the calls that were asked and the pieces of news."""
  asked, news, step = [], [], 0
  text.num_pending = 0  # the prompt was fed
  while not text.finished:
    call = text.append_tokens(writer.write(text, chunks[step % len(chunks)]))
    step += 1
    news.append(told(text))
    if call:
      opened, held = writer.open_at, (PROMPT + text.tokens)[:text.num_computed_tokens]
      asked.append(call)
      result = (results or {}).get(call.argument)
      text.finish_call(call, result, None if result is not None else 'Up: broken')
      news.append(told(text))
      if result is None:
        assert text.num_pending == 0 and len(text.tokens) == opened
      else:
        # What is in the cache is what the text begins with; the rest is pending.
        whole, length = PROMPT + text.tokens, text.num_computed_tokens
        assert whole[:length] == held[:length] and whole[length:] == text.pending_tokens
        assert length == len(held) or whole[length] != held[length]
        assert text.num_pending == len(text.pending_tokens) - 1 >= 0
        text.num_pending = 0
        writer.answered += len(text.tokens) - opened
      writer.open_at = None
  return asked, news


def ended(tokenizer, text):
  return [*tokenizer.encode(text), tokenizer.eos_id]


@given(TEXTS, CHUNKS)
def test_any_text_is_told_in_pieces(tokenizer, text, chunks):
  continuation = begin(tokenizer)
  _, news = play(continuation, Writer(ended(tokenizer, text), {}), chunks)
  assert continuation.output() == GeneratedText(tokenizer.encode(text), text, [], 'stop')
  assert ''.join(news) == text


@given(NOISE, CHUNKS)
def test_what_is_no_text_is_told_in_pieces_too(tokenizer, noise, chunks):
  continuation = begin(tokenizer)
  _, news = play(continuation, Writer([*noise, tokenizer.eos_id], {}), chunks)
  assert ''.join(news) == continuation.output().text == tokenizer.decode(noise)


@given(TEXTS, st.text('abE é漢', min_size=1, max_size=3), TEXTS, CHUNKS)
@settings(max_examples=300)
def test_a_text_ends_before_a_stop_string(tokenizer, before, stop, after, chunks):
  continuation = begin(tokenizer, stop=(stop,))
  _, news = play(continuation, Writer(ended(tokenizer, before + stop + after), {}), chunks)
  expected = (before + stop + after).split(stop)[0]
  assert continuation.output().text == ''.join(news) == expected


@given(TEXTS, st.lists(st.text('abE é', min_size=1, max_size=3), min_size=1, max_size=3), CHUNKS)
@settings(max_examples=300)
def test_the_first_complete_one_of_several_stop_strings_counts(tokenizer, text, stops, chunks):
  continuation = begin(tokenizer, stop=tuple(stops))
  _, news = play(continuation, Writer(ended(tokenizer, text), {}), chunks)
  ends = {text.find(stop) + len(stop) for stop in stops if stop in text}
  cuts = [text[:min(ends)].find(stop) for stop in stops if stop in text[:min(ends, default=0)]]
  expected = text[:min(cuts)] if cuts else text
  assert continuation.output().text == ''.join(news) == expected
  # The tokens go on to the one that completed it.
  assert tokenizer.decode(continuation.tokens) == text[:min(ends, default=None)]


@given(TEXTS, st.integers(1, 4), CHUNKS)
@settings(max_examples=300)
def test_a_text_ends_after_so_many_words(tokenizer, text, words, chunks):
  continuation = begin(tokenizer, max_words=words)
  _, news = play(continuation, Writer(ended(tokenizer, text), {}), chunks)
  expected = text if len(text.split()) < words else text[:list(
      re.finditer(r'\S+', text))[words - 1].end()]
  # Blanks at the very end may be there or not: nothing follows them.
  assert continuation.output().text == ''.join(news)
  assert continuation.output().text.rstrip() == expected.rstrip()


def test_half_a_stop_string_is_told_once_it_is_none(tokenizer):
  continuation = begin(tokenizer, stop=('EN.',))
  pieces = []
  for character in 'aENbE':
    continuation.append_tokens(tokenizer.encode(character))
    pieces.append(told(continuation))
  continuation.append_tokens([tokenizer.eos_id])
  assert [*pieces, told(continuation)] == ['a', '', '', 'ENb', '', 'E']


def test_half_a_character_is_told_once_it_is_whole(tokenizer):
  continuation = begin(tokenizer)
  pieces = []
  for token in tokenizer.encode('a漢'):
    continuation.append_tokens([token])
    pieces.append(told(continuation))
  assert pieces == ['a', '', '', '漢']


@given(st.integers(1, 30), CHUNKS)
def test_no_more_tokens_than_wanted(tokenizer, wanted, chunks):
  continuation = begin(tokenizer, max_tokens=wanted)
  _, news = play(continuation, Writer(tokenizer.encode('漢' * 30), {}), chunks)
  assert len(continuation.tokens) == wanted
  assert ''.join(news) == continuation.output().text == tokenizer.decode(continuation.tokens)


@pytest.mark.parametrize(('changes', 'reason'), [
    ({}, 'stop'), ({'stop': ('c',)}, 'stop'), ({'max_tokens': 2}, 'length'),
    ({'max_words': 1}, 'stop'), ({'max_model_len': len(PROMPT) + 2}, 'length')])
def test_a_text_tells_why_it_ended(tokenizer, changes, reason):
  text = begin(tokenizer, **changes)
  assert text.finish_reason is None
  play(text, Writer(ended(tokenizer, 'ab cd'), {}), [1])
  assert text.output().finish_reason == reason


@pytest.mark.parametrize('changes', [
    {'max_tokens': 0}, {'temperature': float('nan')}, {'temperature': -1.0}, {'top_p': 0.0},
    {'top_p': float('nan')}, {'stop': ('',)}, {'stop': 'x'}, {'min_tokens': 3, 'max_tokens': 2}])
def test_params_are_checked(changes):
  with pytest.raises(UserError, match=f'GenerationConfig.{next(iter(changes))}'):
    GenerationConfig(**changes)


def test_what_comes_after_the_end_is_not_taken_in(tokenizer):
  continuation = begin(tokenizer)
  assert continuation.append_tokens([*ended(tokenizer, 'ab'), *tokenizer.encode('cd')]) is None
  assert continuation.finished and continuation.output().text == 'ab'


@given(st.lists(st.tuples(st.one_of(TEXTS, NOISE), OPENINGS), max_size=3), TEXTS, RESULTS,
       st.integers(0, 3),
       st.lists(st.text('abE é', min_size=1, max_size=2), max_size=2), st.integers(1, 40), CHUNKS)
@settings(max_examples=400)
def test_calls_and_texts_do_not_depend_on_how_tokens_arrive(
    tokenizer, parts, last, result, max_calls, stops, max_tokens, chunks):
  def finish(sizes):
    plain, openings = [], {}
    for text, opening in parts:
      plain += tokenizer.encode(text) if isinstance(text, str) else text
      openings[len(plain)] = tokenizer.encode(opening)
    continuation = begin(tokenizer, names=['Up'], max_calls=max_calls, stop=tuple(stops),
                         max_tokens=max_tokens)
    writer = Writer([*plain, *ended(tokenizer, last), *[0] * 100], openings)
    asked, news = play(continuation, writer, sizes, {'ab': 'XY', 'a': result, '': result})
    return continuation.output(), asked, ''.join(news)
  generated, asked, news = finish(chunks)
  assert (generated, asked, news) == finish([1])
  assert news == generated.text
  assert len(generated.calls) == len(asked) <= max_calls
  assert [(m.call.name, m.call.argument) for m in generated.calls] == [
      (call.name, call.argument) for call in asked]


def call_once(tokenizer, opening, result, chunks, **changes):
  """Returns the continuation `ab<opening>...cd`, and what was asked on the way."""
  continuation = begin(tokenizer, **{'names': ['Up'], **changes})
  writer = Writer(ended(tokenizer, 'abcd'), {2: tokenizer.encode(opening)})
  asked, news = play(continuation, writer, chunks, {'x': result})
  assert ''.join(news) == continuation.output().text
  return continuation, asked


@given(CHUNKS)
def test_a_result_stands_in_the_text_as_it_was_trained_on(tokenizer, chunks):
  continuation, asked = call_once(tokenizer, ' [Up(x) ->', 'XY', chunks)
  assert asked == [Call('Up', 'x')]
  encode = tokenizer.encode
  assert continuation.output() == GeneratedText(
      [*encode('ab'), *encode(' [Up(x) ->'), *encode(' XY]'), *encode('cd')],
      'ab [Up(x) -> XY]cd', [ToolCall(Call('Up', 'x', 'XY'))], 'stop')


@given(CHUNKS)
def test_a_failed_call_leaves_nothing_but_its_failure(tokenizer, chunks):
  continuation, _ = call_once(tokenizer, ' [Up(x) ->', None, chunks)
  assert continuation.output() == GeneratedText(
      tokenizer.encode('abcd'), 'abcd', [ToolCall(Call('Up', 'x'), 'Up: broken')], 'stop')


@pytest.mark.parametrize('opening', [
    ' [Up x', ' [Down(x) ->', ' [Up(x)]', ' [Up(x\n', ' [Up(' + 'x' * 40 + ') ->'])
@given(CHUNKS)
@settings(max_examples=20)
def test_a_malformed_call_leaves_nothing(tokenizer, opening, chunks):
  continuation, asked = call_once(tokenizer, opening + 'y' * 40, 'XY', chunks)
  assert asked == []
  assert continuation.output() == GeneratedText(tokenizer.encode('abcd'), 'abcd', [], 'stop')


@pytest.mark.parametrize('changes', [{'names': []}, {'disable_tools': True}, {'max_calls': 0}])
def test_no_call_may_start_where_there_shall_be_none(tokenizer, changes):
  assert begin(tokenizer, names=['Up']).may_start_call
  assert not begin(tokenizer, **{'names': ['Up'], **changes}).may_start_call


@given(CHUNKS)
def test_calls_and_results_do_not_count_as_tokens(tokenizer, chunks):
  continuation, _ = call_once(tokenizer, ' [Up(x) ->', 'XY', chunks, max_tokens=3)
  assert continuation.output().text == 'ab [Up(x) -> XY]c'


@given(CHUNKS)
def test_calls_and_results_do_not_count_as_words(tokenizer, chunks):
  opening, result = ' [Up(of x and y) ->', 'X or Y'
  writer = Writer(ended(tokenizer, 'abc de fg hi'), {2: tokenizer.encode(opening)})
  continuation = begin(tokenizer, ['Up'], max_words=2)
  _, news = play(continuation, writer, chunks, {'of x and y': result})
  assert continuation.output().text == ''.join(news) == f'ab{opening} {result}]c de'


@given(CHUNKS)
def test_no_call_is_made_once_the_words_are_there(tokenizer, chunks):
  continuation, asked = call_once(tokenizer, ' [Up(x) ->', 'XY', chunks, max_words=1)
  assert asked == []
  assert continuation.output() == GeneratedText(tokenizer.encode('ab'), 'ab', [], 'stop')


@given(CHUNKS, st.sampled_from(['Up', 'XY', '->', ']c', 'b [', 'bc']))
def test_calls_and_results_do_not_stop_a_text(tokenizer, chunks, stop):
  continuation, _ = call_once(tokenizer, ' [Up(x) ->', 'XY', chunks, stop=(stop,))
  assert continuation.output().text == 'ab [Up(x) -> XY]cd'


@given(CHUNKS)
def test_a_stop_string_may_lie_around_a_call_that_was_taken_back(tokenizer, chunks):
  continuation, _ = call_once(tokenizer, ' [Up(x) ->', None, chunks, stop=('bc',))
  assert continuation.output().text == 'a'


@given(CHUNKS)
def test_a_text_after_a_call_ends_before_a_stop_string(tokenizer, chunks):
  continuation, _ = call_once(tokenizer, ' [Up(x) ->', 'XY', chunks, stop=('d', 'XY'))
  assert continuation.output().text == 'ab [Up(x) -> XY]c'


def test_an_end_inside_of_a_call_takes_the_call_back(tokenizer):
  text = begin(tokenizer, ['Up'])
  assert text.append_tokens([*tokenizer.encode(' [Up(a'), tokenizer.eos_id]) is None
  assert text.tokens == [] and not text.finished and not text.may_start_call


@pytest.mark.parametrize('room', [1, 4, 11, 12, 30])
def test_a_text_ends_where_the_model_has_no_positions_left(tokenizer, room):
  text = begin(tokenizer, ['Up'], max_model_len=len(PROMPT) + room)
  call = text.append_tokens(tokenizer.encode(' [Up(a) ->'))
  told = [text.finish_call(call, 'A', None)] if call else []
  while not text.finished:
    text.append_tokens([7, 8])
  assert len(text.tokens) == room
  results = [made.call.result for made in text.output().calls]
  assert results == ([] if room < 8 else [None] if room < 12 else ['A'])
  assert told == text.output().calls


def play_scored(text, writer, chunks, result):
  """As `play`, with steps as the engine makes them: pending tokens are read before others follow.

  The log-probability of a token is a number for all tokens up to it. Returns those that were told,
  and the text that they came with.
  """
  scores, news, step = [], [], 0
  text.num_pending = 0  # the prompt was fed
  def tell():
    for piece in text.new_pieces():
      news.append(piece.text)
      scores.extend(piece.logprobs)
  while not text.finished:
    size = chunks[step % len(chunks)]
    step += 1
    known = text.pending_tokens[1:size + 1]
    new = [*known, *writer.write(text, size - len(known))]
    read = (PROMPT + text.tokens)[:text.num_computed_tokens + 1]
    text.put_logprobs([TokenLogprobs(token, hash((*read, *new[:i + 1])), [])
                       for i, token in enumerate(new)])
    text.mark_computed(len(known))
    call = text.append_tokens(new[len(known):])
    tell()
    if call:
      opened = writer.open_at
      made = text.finish_call(call, result, None if result is not None else 'Up: broken')
      if made.failure is None:
        writer.answered += len(text.tokens) - opened
      writer.open_at = None
      tell()
  return scores, ''.join(news)


@given(TEXTS, st.lists(st.tuples(st.integers(0, 20), OPENINGS), max_size=3), RESULTS,
       st.sampled_from([(), ('a',), ('b ', 'E')]), CHUNKS, st.booleans())
@settings(max_examples=300)
def test_log_probabilities_are_those_of_the_tokens_that_are_kept(
    tokenizer, plain, openings, result, stop, chunks, spelled_apart):
  text = begin(tokenizer, ['Up'], with_logprobs=True, stop=stop, max_calls=2)
  def encode(opening):  # if apart, a finished call has other tokens than the model wrote
    start, rest = opening[:2], opening[2:]
    return [*tokenizer.encode(start), *(
        token for part in (rest if spelled_apart else [rest]) for token in tokenizer.encode(part))]
  written = {at: encode(opening) for at, opening in openings}
  scores, news = play_scored(text, Writer(ended(tokenizer, plain), written), chunks, result)
  output, offsets = text.output(), TextOffsets(tokenizer)
  assert news == output.text
  kept = [token for token in output.token_ids if offsets.add(token) < len(output.text)]
  assert [one.token for one in scores] == kept
  assert [one.logprob for one in scores] == [
      hash((*PROMPT, *kept[:i + 1])) for i in range(len(kept))]
