"""The grammar of calls: what is written reads back, and removing calls gives the text again."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from toolformer_jax.calls import (
  DEFAULT_SYNTAX,
  MAX_ARGUMENT_CHARS,
  Call,
  CallSyntax,
  insert_calls,
  unquote,
)

NAMES = {'QA', 'WikiSearch', 'Calculator', 'Calendar', 'MT'}
SYNTAXES = [
  DEFAULT_SYNTAX,
  CallSyntax(arrow='->'),
  CallSyntax(start='<API>', arrow='→', end='</API>'),
  CallSyntax(start='{{', arrow=' =', end='}}'),
  CallSyntax(start=' [[', arrow=' |', end=']]'),
]

# Of what calls are made of, so that hypothesis meets every near miss.
MORSELS = ['[', ']', ' [', '(', ')', ' ->', '->', '"', "'", ',', ' ', 'a', 'QA', 'QA(', '1']

texts = st.one_of(st.text(), st.lists(st.sampled_from(MORSELS)).map(''.join))
names = st.sampled_from(sorted(NAMES))
plain = st.text("ab 12+*,.?'", max_size=8)
balanced = st.recursive(plain, lambda inner: st.one_of(
  st.tuples(inner, inner).map(lambda two: f'{two[0]}({two[1]})'),
  inner.map(lambda text: '"' + text.replace('"', '') + ':("'),
), max_leaves=4)
calls = st.builds(Call, names, st.one_of(texts, balanced), st.one_of(st.none(), texts))
clean_calls = st.builds(
  Call, names, balanced, texts.map(lambda text: DEFAULT_SYNTAX.clean_result(text, 50))
)


@pytest.mark.parametrize('syntax', SYNTAXES)
@given(call=calls, before=texts, after=texts)
@example(call=Call('QA', ':(', 'sad'), before='', after=' x)]')
@example(call=Call('QA', 'a (b', 'c'), before='x', after=' (see [1])')
@example(call=Call('QA', '5" (b)', 'c'), before='x', after='" )]')
def test_a_call_is_refused_or_reads_back_within_any_text(syntax, call, before, after):
  try:
    linear = syntax.linearise(call)
  except ValueError:
    return
  assume(not syntax.find(before + after, NAMES) and not syntax.find(before, NAMES))
  assume(not syntax.find(after, NAMES))
  text = before + linear + after
  [span] = syntax.find(text, NAMES)
  assert (span.call, span.start, span.end) == (call, len(before), len(before) + len(linear))
  assert syntax.remove(text, NAMES) == before + after


@pytest.mark.parametrize('syntax', SYNTAXES)
@given(name=names, argument=st.text('abc 0123456789+-*/.,?\''), result=texts)
def test_a_plain_argument_with_a_cleaned_result_is_never_refused(syntax, name, argument, result):
  call = Call(name, argument, syntax.clean_result(result, 100))
  assume(not call.result.endswith((']', '}')))  # Fuses with an end like `}}`; never by default.
  assert syntax.find(syntax.linearise(call), NAMES)[0].call == call


@given(st.lists(st.tuples(st.text('ab .,\n'), clean_calls)), st.text('ab .,\n'))
def test_several_calls_are_found_in_order_and_removed(pieces, rest):
  text = ''.join(prose + DEFAULT_SYNTAX.linearise(call) for prose, call in pieces) + rest
  assert [span.call for span in DEFAULT_SYNTAX.find(text, NAMES)] == [call for _, call in pieces]
  assert DEFAULT_SYNTAX.remove(text, NAMES) == ''.join(prose for prose, _ in pieces) + rest


@pytest.mark.parametrize('text, expected', [
  (' [Calculator((1 + 2) * (3 - 1)) -> 6]', Call('Calculator', '(1 + 2) * (3 - 1)', '6')),
  (' [QA("Where was Joe Biden born?")]', Call('QA', '"Where was Joe Biden born?"')),
  (' [QA(Who wrote "Emma (novel)", when?)]', Call('QA', 'Who wrote "Emma (novel)", when?')),
  (" [QA(What's O'Brien's job, now?) -> spy]", Call('QA', "What's O'Brien's job, now?", 'spy')),
  (' [WikiSearch("smile :)") -> a face]', Call('WikiSearch', '"smile :)"', 'a face')),
  (' [WikiSearch(f(x)] in maths)]', Call('WikiSearch', 'f(x)] in maths')),
  (' [WikiSearch(f(x)] in maths.', Call('WikiSearch', 'f(x')),
  (' [QA("in [MT(x)] too?") -> y]', Call('MT', 'x')),
  (' [QA(of [1] and [sic] too) -> y]', Call('QA', 'of [1] and [sic] too', 'y')),
  (' [Calendar() -> Today is Monday.]', Call('Calendar', '', 'Today is Monday.')),
  (' [MT(sûreté nucléaire) -> nuclear safety]', Call('MT', 'sûreté nucléaire', 'nuclear safety')),
  (' [Calculator(1 + 1) -> ]', Call('Calculator', '1 + 1', '')),
  (' [Calculator(1 + 1) ->]', Call('Calculator', '1 + 1', '')),
  (' [MT(a) eins, b) zwei)]', Call('MT', 'a) eins, b) zwei')),
])
def test_calls_of_many_shapes_are_read(text, expected):
  [span] = DEFAULT_SYNTAX.find(f'Before{text} after', NAMES)
  assert span.call == expected


@pytest.mark.parametrize('text', [
  'A fact. [1] Another [citation needed] (see [Smith(2003)] and [12]).',
  'Not known [Sqrt(2)] or [QAx(1)] or [xQA(1)].',
  'No parentheses [QA] or [QA: what?] or [QA (what?)].',
  'Never ended [QA(what?',
  'Never ended [QA(what?) -> this',
  'Ended otherwise [QA(what?) -> this}',
  'Wrong arrow [QA(what?) => this]',
  'Nothing between [QA(what?)-> this]',
  'Not closed [QA(what? -> this]',
  'Without the blank[QA(what?)]',
  f'Endless [QA({"x" * MAX_ARGUMENT_CHARS})]',
])
def test_other_brackets_and_broken_calls_are_prose(text):
  assert DEFAULT_SYNTAX.find(text, NAMES) == []
  assert DEFAULT_SYNTAX.remove(text, NAMES) == text


def test_a_call_that_never_ends_does_not_swallow_the_next():
  text = 'One [Calculator(1 + 1) -> 2 and two [Calculator(2 + 2) -> 4]; see [1].'
  assert [span.call.argument for span in DEFAULT_SYNTAX.find(text, NAMES)] == ['2 + 2']


@pytest.mark.parametrize('before', [
  ' [Calculator(', ' [Calculator(3', ' [Calculator(3 and', ' [Calculator(3) and', ' [QA("',
  ' [Calculator(3) ->', ' [Calculator(3) -> 4 and', ' [Calculator((', ' [QA(a "b) c" (', ' [',
])
@pytest.mark.parametrize('after', ['', ' and so on.', ') x', ' "quoted" (1)', ' (see [1])'])
@pytest.mark.parametrize('argument', ['1 + 2', '(1 + 2) * 3', '"a"', 'a "b', '5" b'])
def test_an_unclosed_call_in_the_prose_does_not_swallow_a_call(before, after, argument):
  call = Call('Calculator', argument, '3')
  text = before + DEFAULT_SYNTAX.linearise(call) + after
  assert [span.call for span in DEFAULT_SYNTAX.find(text, NAMES)] == [call]
  assert DEFAULT_SYNTAX.remove(text, NAMES) == before + after


@pytest.mark.parametrize('result', ['5] and [Calculator(1) -> 2]', '[Calculator(', 'a\n]\nb', ']'])
def test_a_cleaned_result_cannot_close_or_open_a_call(result):
  cleaned = DEFAULT_SYNTAX.clean_result(result, 100)
  text = f'a{DEFAULT_SYNTAX.linearise(Call("QA", "x", cleaned))} b'
  assert DEFAULT_SYNTAX.remove(text, NAMES) == 'a b'


def test_only_the_given_names_are_calls():
  text = ' [QA(a)] [MT(b)]'
  assert DEFAULT_SYNTAX.remove(text, {'QA'}) == ' [MT(b)]'


@pytest.mark.parametrize('call', [
  Call('QA', 'a)] b'),
  Call('QA', 'a) -> b'),
  Call('QA', 'open ( for ever', 'x'),
  Call('QA', 'what is [MT(x)]?', 'x'),
  Call('QA', 'a', 'see [1]'),
  Call('Q A', 'a'),
  Call('', 'a'),
  Call('QA', 'x' * MAX_ARGUMENT_CHARS),
])
def test_calls_that_would_read_differently_are_refused(call):
  with pytest.raises(ValueError, match='cannot be written'):
    DEFAULT_SYNTAX.linearise(call)


def test_the_spelling_is_that_of_the_design():
  call = Call('Calculator', '48 + 36', '84')
  assert DEFAULT_SYNTAX.linearise(call) == ' [Calculator(48 + 36) -> 84]'
  assert DEFAULT_SYNTAX.request(call) == ' [Calculator(48 + 36)]'
  assert DEFAULT_SYNTAX.opening(call) == ' [Calculator(48 + 36) ->'
  assert DEFAULT_SYNTAX.closing('84') == ' 84]'
  assert DEFAULT_SYNTAX.closing('') == ' ]'


@pytest.mark.parametrize('syntax', SYNTAXES)
@given(result=st.one_of(texts, st.text('<API>/→{}|=[]- ')), limit=st.integers(1, 30))
def test_a_clean_result_is_one_short_line_without_marks(syntax, result, limit):
  cleaned = syntax.clean_result(result, limit)
  assert len(cleaned) <= limit
  assert cleaned == ' '.join(cleaned.split())
  for mark in ('[', ']', '->', syntax.start.strip(), syntax.arrow.strip(), syntax.end.strip()):
    assert mark not in cleaned
  assert syntax.clean_result(cleaned, limit) == cleaned


@pytest.mark.parametrize('result, limit, cleaned', [
  ('see [1] and [2]', 100, 'see (1) and (2)'),
  ('a -> b', 100, 'a - b'),
  (' two\n\nlines\t', 100, 'two lines'),
  ('cut at a word', 11, 'cut at a'),
  ('uncuttable', 5, 'uncut'),
])
def test_cleaning(result, limit, cleaned):
  assert DEFAULT_SYNTAX.clean_result(result, limit) == cleaned


@pytest.mark.parametrize('mark', ['start', 'arrow', 'end'])
def test_a_blank_mark_is_refused(mark):
  with pytest.raises(ValueError, match='blank'):
    CallSyntax(**{mark: ' '})


@given(st.text(), st.sampled_from(['"', "'"]))
def test_unquote_takes_one_pair_of_quotes_and_the_blanks(text, quote):
  assert unquote(f' {quote}{text}{quote}\n') == text.strip()


@pytest.mark.parametrize('argument', ['"', "it's", '"open', 'closed"', '"mixed\'', ''])
def test_unquote_leaves_what_is_not_a_pair(argument):
  assert unquote(argument) == argument


def encode(text):
  """A toy tokenizer whose ids are unlike any of a text below 1,000."""
  return [1000 + ord(character) for character in text]


@st.composite
def placed_calls(draw):
  ids = draw(st.lists(st.integers(0, 999), max_size=12))
  places = st.lists(st.tuples(st.integers(0, len(ids)), clean_calls), max_size=4)
  return ids, draw(places)


@given(placed_calls())
def test_inserted_calls_leave_the_ids_and_stand_in_two_pieces_at_their_place(placed):
  ids, places = placed
  inserted = insert_calls(ids, places, encode)
  assert [token for token in inserted if token < 1000] == ids
  expected = []
  for position, token in enumerate([*ids, None]):
    for place, call in places:
      if place == position:
        expected += encode(DEFAULT_SYNTAX.linearise(call))
    expected += [] if token is None else [token]
  assert inserted == expected


def test_pieces_are_encoded_apart():
  pieces = []
  insert_calls([1, 2], [(1, Call('QA', 'a', 'b'))], lambda text: pieces.append(text) or [])
  assert pieces == [' [QA(a) ->', ' b]']


@pytest.mark.parametrize('position', [-1, 3])
def test_positions_outside_of_the_text_are_refused(position):
  with pytest.raises(ValueError, match=f'position {position} is outside a text of 2 tokens'):
    insert_calls([1, 2], [(position, Call('QA', 'a', 'b'))], encode)
