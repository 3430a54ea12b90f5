"""Addresses: read, written and refused; what they select."""

import contextlib
import math
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.data.records import Candidate, Document, ExecutedCall
from toolformer_jax.errors import UserError
from toolformer_jax.view.data import STATES, Run, ShownCall, Text
from toolformer_jax.view.gains import ToolGains
from toolformer_jax.view.query import Query, Selection, parse, select

TOOLS = tuple(ToolGains(name, tau_f, math.inf, (), (), ())
              for name, tau_f in (('Calculator', 0.5), ('Wiki & Söhne', 1.0)))
NAMES = [tool.name for tool in TOOLS]
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
QUERIES = st.builds(
    Query, st.fixed_dictionaries({name: NUMBERS for name in NAMES}),
    st.none() | st.sampled_from(NAMES), st.none() | st.sampled_from(STATES), st.none() | NUMBERS,
    st.integers(1, 10 ** 9 - 1))


@st.composite
def shown_calls(draw):
  tool, failure = draw(st.sampled_from(NAMES)), draw(st.sampled_from([None, 'why']))
  gain = draw(st.none() | st.floats(-2, 2))
  record = draw(st.sampled_from([
      Candidate('d', tool, '', 0, 0.5), ExecutedCall('d', tool, '', 0, 0.5, None, failure)]))
  bound = draw(st.none() | st.floats(-2, 2)) if gain is None else None
  return ShownCall(record, gain, bound, draw(st.booleans()) and gain is not None)


TEXTS = st.lists(st.lists(shown_calls(), max_size=4), max_size=4)


def run_of(texts):
  return Run('r', TOOLS, (), tuple(Text(Document(str(i), ''), tuple(calls))
                                   for i, calls in enumerate(texts)), None)


def shown(texts, query):
  return [id(call) for selection in select(run_of(texts), query) for call in selection.calls]


@given(QUERIES)
def test_an_address_is_read_as_it_was_written(query):
  path, _, fields = query.url(query.page).partition('?')
  assert path == '/'
  assert parse(fields, TOOLS) == query


def test_what_an_address_leaves_out_is_as_in_the_run():
  expected = Query({'Calculator': 0.5, 'Wiki & Söhne': 1.0})
  assert parse('', TOOLS) == expected
  assert parse('tool=&state=&min_gain=&tau_f.Calculator=', TOOLS) == expected  # an empty form


@pytest.mark.parametrize('fields, message', [
  ('tool=Calculatr', "unknown tool 'Calculatr': did you mean Calculator"),
  ('state=good', "unknown state 'good': choose from failed, kept, pending, rejected, unknown"),
  ('min_gain=much', "min_gain: 'much' is not a number"),
  ('min_gain=nan', "'nan' is not a number"), ('tau_f.Calculator=1e999', "'1e999' is not a numb"),
  ('tau_f.Calcu=1', "unknown field 'tau_f.Calcu': did you mean tau_f.Calculator"),
  ('pages=2', "unknown field 'pages': did you mean page"),
  ('page=0', "page: '0' is not the number of a page"), ('page=-1', 'not the number of a page'),
  ('page=%C2%B2', 'not the number of a page'), ('page=' + '9' * 5000, 'not the number of a page'),
  ('page=1&page=2', 'a field occurs twice in the address'),
  ('&'.join(f'a{i}=1' for i in range(200)), 'cannot parse the address'),
])
def test_bad_addresses_are_explained(fields, message):
  with pytest.raises(UserError, match=message.replace('?', r'\?')):
    parse(fields, TOOLS)


@given(st.text(st.characters(exclude_categories=('Cs',))) | st.dictionaries(
    st.sampled_from(['tool', 'state', 'page', 'min_gain', 'tau_f.Calculator']),
    st.text(st.characters(exclude_categories=('Cs',)))).map(urllib.parse.urlencode))
def test_any_other_address_is_an_error_for_people(fields):
  with contextlib.suppress(UserError):
    assert isinstance(parse(fields, TOOLS), Query)


@given(TEXTS, QUERIES, st.floats(-2, 2), st.floats(0, 1))
def test_a_higher_least_gain_never_shows_more(texts, query, min_gain, more):
  def at(value):
    return set(shown(texts, Query(query.tau_f, query.tool, query.state, value)))
  assert at(min_gain + more) <= at(min_gain) <= at(None)


@given(TEXTS, st.fixed_dictionaries({name: st.floats(-2, 2) for name in NAMES}))
def test_states_and_tools_divide_the_calls(texts, tau_f):
  every = shown(texts, Query(tau_f))
  assert sorted(every) == sorted(id(call) for calls in texts for call in calls)
  for choices in ([Query(tau_f, state=state) for state in STATES],
                  [Query(tau_f, tool=name) for name in NAMES]):
    assert sorted(every) == sorted(call for query in choices for call in shown(texts, query))


@given(TEXTS, QUERIES)
def test_texts_without_a_call_that_is_asked_for_are_not_shown(texts, query):
  run = run_of(texts)
  selected = select(run, query)
  assert all(isinstance(selection, Selection) and selection.calls for selection in selected)
  order = [run.texts.index(selection.text) for selection in selected]
  assert order == sorted(order)
