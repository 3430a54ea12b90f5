"""C*: what is kept, and law 2: remove the calls of a record and its text is back."""

from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.annotation.merge import documents_over_cap, merge
from toolformer_jax.calls import DEFAULT_SYNTAX, insert_calls
from toolformer_jax.data.records import Document, ScoredCall, from_json, to_json

NAMES = ('Calculator', 'WikiSearch')
TAU_F = {'Calculator': 0.5, 'WikiSearch': 1.0}
TEXTS = st.text(st.characters(exclude_categories=('Cs',)), max_size=60)
CALLS = st.lists(st.tuples(
    st.sampled_from(NAMES), st.text('0123456789+-*/ ,"', max_size=12), st.integers(0, 60),
    st.text('abc 123.', max_size=9), st.floats(-2, 3)), max_size=8)


def scored(name, argument, position, result, gain):
  return ScoredCall('d', name, argument, position, 0.1, result.strip(), loss_no_call=gain,
                    loss_call=gain, loss_result=0.0)


@given(TEXTS, CALLS)
def test_removing_the_calls_gives_the_text_back(text, calls):
  encode = lambda string: list(string.encode())  # noqa: E731
  ids = encode(text)
  made = [scored(*call) for call in calls if call[2] <= len(ids) and _whole(text, call[2])]
  annotated, _ = merge([Document('d', text)], made, TAU_F)
  kept = [call for record in annotated for call in record.calls]
  merged = insert_calls(ids, [(call.position, call.call()) for call in kept], encode)
  whole = bytes(merged).decode()
  if '[' not in text:  # else the text may hold what reads as a call
    assert DEFAULT_SYNTAX.remove(whole, NAMES) == text
    assert len(DEFAULT_SYNTAX.find(whole, NAMES)) == len(kept)
  pieces, at = [], 0
  for call in kept:  # and by token, whatever the text holds
    size = len(encode(DEFAULT_SYNTAX.opening(call.call()))) + len(
        encode(DEFAULT_SYNTAX.closing(call.result)))
    begin = call.position + at
    pieces.append((begin, begin + size))
    at += size
  for begin, end in reversed(pieces):
    del merged[begin:end]
  assert merged == ids


def _whole(text, position):
  try:
    text.encode()[:position].decode()
  except UnicodeDecodeError:
    return False
  return True


@given(st.sets(st.text(max_size=3)), st.integers(1, 10), st.integers(0, 5), st.randoms())
def test_a_cap_leaves_as_many_texts_whatever_their_order(ids, cap, seed, random):
  shuffled = sorted(ids)
  random.shuffle(shuffled)
  excluded = documents_over_cap('QA', ids, cap, seed)
  assert excluded == documents_over_cap('QA', shuffled, cap, seed)
  assert excluded <= {('QA', document_id) for document_id in ids}
  assert len(ids) - len(excluded) == min(len(ids), cap)


def test_texts_over_the_cap_keep_the_calls_of_other_tools():
  made = [scored('Calculator', '1 + 1', 0, '2', 2.0), scored('WikiSearch', 'x', 0, 'y', 2.0)]
  annotated, _ = merge([Document('d', 'text')], made, TAU_F, {('WikiSearch', 'd')})
  assert [call.tool for record in annotated for call in record.calls] == ['Calculator']


@given(CALLS)
def test_what_is_kept(calls):
  made = [scored(*call) for call in calls]
  annotated, counts = merge([Document('d', 'x'), Document('e', 'y')], made, TAU_F)
  kept = [call for record in annotated for call in record.calls]
  assert all(call.gain >= TAU_F[call.tool] for call in kept)
  places = {(c.position, c.tool): [o.gain for o in made if (o.position, o.tool) == (
      c.position, c.tool)] for c in made if c.gain >= TAU_F[c.tool]}
  assert {(c.position, c.tool): c.gain for c in kept} == {p: max(g) for p, g in places.items()}
  assert [c.position for c in kept] == sorted(c.position for c in kept)
  assert len(annotated) == bool(kept)  # a text without a call is dropped
  assert sum(counts[f'merged {name}'] for name in NAMES) == len(kept)


@given(TEXTS, CALLS)
def test_records_survive_the_disk(text, calls):
  annotated, _ = merge([Document('d', text, title='t')], [scored(*call) for call in calls], TAU_F)
  for record in annotated:
    assert from_json(type(record), to_json(record)) == record
