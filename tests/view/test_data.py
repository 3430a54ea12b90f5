"""What is in a run's folder is found, whatever is missing, and nothing in it changes."""

import dataclasses
import json
import math
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.annotation.merge import merge
from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.data.records import Candidate, Document, ExecutedCall
from toolformer_jax.errors import UserError
from toolformer_jax.view.charts import threshold_slider
from toolformer_jax.view.data import LiveRun, ShownCall, cut_at_calls

TAU_F = {'Calculator': 0.5, 'WikiSearch': 1.0}
DOCUMENTS = [Document('a', 'Five and six.'), Document('b', 'Seven.'), Document('c', 'Äñ €.')]
PROPOSED = Candidate('a', 'Calculator', '2', 1, 0.5)
FAILED = ExecutedCall('a', 'Calculator', '1/0', 1, 0.5, None, 'division by zero')
EXECUTED = ExecutedCall('b', 'WikiSearch', '"x"', 0, 0.5, 'X')
TEXTS = st.text(st.characters(exclude_categories=('Cs',)), max_size=40)
GAINS = st.floats(-3, 3) | st.sampled_from([0.5, 1.0])


@pytest.fixture
def calls(scored):
  return [PROPOSED, FAILED, EXECUTED, scored('a', 1, 0.75), scored('c', 2, -0.5)]


@pytest.fixture
def path(tmp_path, write_run, calls):
  return write_run(tmp_path / 'run', [DOCUMENTS[:2], DOCUMENTS[2:]], calls, TAU_F)


def states(path):
  return {(call.record.argument, call.record.position): call.state(TAU_F[call.record.tool])
          for text in LiveRun(path).read().texts for call in text.calls}


def test_every_call_is_shown_once_as_far_as_it_came(path, calls):
  run = LiveRun(path).read()
  assert (run.name, [tool.name for tool in run.tools]) == ('run', list(TAU_F))
  assert [text.document for text in run.texts] == DOCUMENTS
  shown = [call.record for text in run.texts for call in text.calls]
  assert sorted(map(repr, shown)) == sorted(map(repr, calls))
  assert states(path) == {('2', 1): 'pending', ('1/0', 1): 'failed', ('"x"', 0): 'pending',
                          ('1 + 2', 1): 'kept', ('1 + 2', 2): 'rejected'}


@pytest.mark.parametrize('missing, found', [
  ('calculator/filter', {('1 + 2', 1): 'pending', ('1 + 2', 2): 'pending', ('1/0', 1): 'failed'}),
  ('calculator/execute', {('1 + 2', 1): 'kept', ('1 + 2', 2): 'rejected', ('1/0', 1): 'pending'}),
  ('calculator/sample', {('1 + 2', 1): 'kept', ('1/0', 1): 'failed'}),
  ('calculator/filter/00000.jsonl', {('1 + 2', 1): 'pending', ('1 + 2', 2): 'rejected'}),
  ('documents/00000.jsonl', {('1 + 2', 2): 'rejected'}),
  ('documents', {}), ('wikisearch', {('1 + 2', 1): 'kept'}),
])
def test_what_is_missing_takes_nothing_else_away(path, missing, found, chunk):
  if missing.endswith('.jsonl'):
    chunk(path, missing).unlink()
  else:
    shutil.rmtree(path / missing)
  assert states(path).items() >= found.items()


def test_stages_tell_how_far_the_run_has_come(path, chunk):
  chunk(path, 'documents/.COMPLETED').write_text('2')
  chunk(path, 'wikisearch/filter/00001.jsonl').unlink()
  stages = {stage.name: (stage.chunks, stage.is_complete)
            for stage in LiveRun(path).read().stages}
  assert stages['documents'] == (2, True)
  assert stages['wikisearch/execute'] == (2, False)
  assert stages['wikisearch/filter'] == (1, False)
  assert stages['merged'] == (0, False)


def test_a_run_that_goes_on_is_read_again_where_it_is_new(path, chunk):
  filtered = chunk(path, 'calculator/filter/00000.jsonl').rename(path / 'later')
  live_run = LiveRun(path)
  before = live_run.read()
  assert live_run.read() is before
  filtered.rename(chunk(path, 'calculator/filter/00000.jsonl'))
  after = live_run.read()
  assert after.tools[0].positions == (-0.5, 0.75) != before.tools[0].positions
  assert after.texts[2] == before.texts[2]


def test_reading_neither_waits_for_the_writer_nor_writes(path):
  def files():
    return {file: file.stat().st_mtime_ns for file in path.rglob('*')}
  configuration = json.loads((path / 'run.json').read_text())['configuration']
  with RunFolder(path, configuration, {}):
    before = files()
    assert len(LiveRun(path).read().texts) == 3
    assert files() == before


@pytest.mark.parametrize('run_json', [
  None, 'x', '[]', '{}', '{"configuration": {"checkpoint": "c"}}',
  '{"configuration": {"tools": {"Calculator": {}}}}', '{"configuration": {"tools": [1]}}',
])
def test_other_folders_are_refused(tmp_path, tokenizer, run_json):
  tokenizer.save(tmp_path)
  if run_json is not None:
    (tmp_path / 'run.json').write_text(run_json)
  with pytest.raises(UserError, match='is not the output folder of an annotation run'):
    LiveRun(tmp_path)
  with pytest.raises(UserError, match='is not the output folder of an annotation run'):
    LiveRun(tmp_path / 'nowhere')


def test_a_run_without_its_tokenizer_says_what_to_do(path):
  (path / 'tokenizer.json').unlink()
  with pytest.raises(UserError, match='run the same annotate command again to write it'):
    LiveRun(path)


@pytest.mark.parametrize('old, new, message', [
  ('"a"', '"z"', 'has a call to Calculator in the text .z'),
  ('"Calculator"', '"calculator"', 'has a call to calculator in the text .a'),
  ('"position": 1', '"position": "1"', '00000.jsonl:1: not a ScoredCall record'),
])
def test_broken_records_are_named(path, old, new, message, chunk):
  file = chunk(path, 'calculator/filter/00000.jsonl')
  file.write_text(file.read_text().replace(old, new))
  with pytest.raises(UserError, match='00000.jsonl does not have the 1 records that were written'):
    LiveRun(path).read()
  file.with_suffix('.counts.json').unlink()  # as for files that somebody else made
  with pytest.raises(UserError, match=message):
    LiveRun(path).read()


def test_a_stage_that_can_not_be_read_is_named(path):
  (path / 'merged').symlink_to('merged')  # to itself
  with pytest.raises(UserError, match='cannot read .*merged/.*: Too many levels'):
    LiveRun(path).read()


@given(TEXTS, st.data())
def test_a_text_is_cut_before_the_tokens_of_its_calls(tokenizer, text, data):
  ids = tokenizer.encode(text)
  positions = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=5)))
  calls = [ShownCall(Candidate('d', 'T', '', position, 0.5), None, None, False)
           for position in positions]
  pieces = cut_at_calls(text, calls, tokenizer)
  assert [piece for piece in pieces if isinstance(piece, ShownCall)] == calls
  assert ''.join(piece for piece in pieces if isinstance(piece, str)) == text
  before = ''
  for piece in pieces:
    if isinstance(piece, str):
      before += piece
    else:  # half a character is decoded as a replacement, and the call stands before it
      assert tokenizer.decode(ids[:piece.record.position]).removesuffix('\ufffd') == (
          before.removesuffix('\ufffd'))


def test_a_call_outside_its_text_is_an_error(tokenizer):
  call = ShownCall(Candidate('d', 'T', '', 9, 0.5), None, None, False)
  with pytest.raises(UserError, match='has 3 tokens, and a call at position 9'):
    cut_at_calls('abc', [call], tokenizer)


PLACES = st.tuples(st.sampled_from('abc'), st.integers(0, 2), GAINS, st.sampled_from(['1', '2']),
                   st.sampled_from(list(TAU_F)))


@given(st.lists(PLACES, max_size=12), st.floats(-3, 3))
def test_thresholds_keep_what_merging_keeps(tmp_path_factory, write_run, scored, places, tau_f):
  calls = [scored(*place) for place in places]
  path = write_run(tmp_path_factory.mktemp('run') / 'r', [DOCUMENTS[:2], DOCUMENTS[2:]], calls,
                   TAU_F)
  run = LiveRun(path).read()
  for tool in run.tools:
    slider = threshold_slider(tool, tau_f)
    steps = json.loads(slider.steps)
    assert steps[slider.step][0] == tau_f
    for threshold, kept, texts, *unknown, _ in [*steps[::20], steps[slider.step]]:
      assert unknown == [0, 0]
      thresholds = {**dict.fromkeys(TAU_F, math.inf), tool.name: threshold}
      merged, _ = merge(DOCUMENTS, [c for c in calls if c.tool == tool.name], thresholds)
      assert (kept, texts) == (sum(len(record.calls) for record in merged), len(merged))
      states = [call.state(threshold) for text in run.texts for call in text.calls
                if call.record.tool == tool.name]
      assert (states.count('kept'), len(states)) == (kept, states.count('rejected') + kept)


@given(st.lists(PLACES, max_size=12), st.floats(-3, 3), st.floats(-3, 3))
def test_gains_that_are_not_known_are_bounds_and_not_counted(
    tmp_path_factory, write_run, scored, places, min_gain, tau_f):
  """A run that rejects early knows only the gains whose bound is at least `min_gain`."""
  whole = [scored(*place, loss_call=3.0 - 0.25 * (number % 3))
           for number, place in enumerate(places)]
  early = [call if call.loss_no_call - call.loss_result >= min_gain
           else dataclasses.replace(call, loss_call=None) for call in whole]
  path = write_run(tmp_path_factory.mktemp('run') / 'r', [DOCUMENTS[:2], DOCUMENTS[2:]], early,
                   TAU_F)
  for tool in LiveRun(path).read().tools:
    thresholds = {**dict.fromkeys(TAU_F, math.inf), tool.name: tau_f}
    merged, _ = merge(DOCUMENTS, whole, thresholds)
    kept, texts = tool.kept_calls(tau_f), tool.kept_texts(tau_f)
    assert kept <= sum(len(record.calls) for record in merged) <= kept + tool.unknown_calls(tau_f)
    assert texts <= len(merged) <= texts + tool.unknown_texts(tau_f)
    assert len(tool.bounds) == sum(call.loss_call is None for call in early
                                   if call.tool == tool.name)
    if tau_f >= min_gain:
      assert kept == sum(len(record.calls) for record in merged)


@given(st.lists(PLACES, max_size=12), st.sets(st.sampled_from('abc'), max_size=2),
       st.floats(0.1, 1), st.floats(-3, 3))
def test_calls_that_were_not_sampled_are_not_counted_and_may_be_kept(
    tmp_path_factory, write_run, scored, places, rejecting, least, tau_f):
  """No calls are known at positions of some texts where all gain less than `least`."""
  whole = [scored(*place) for place in places]
  def place_of(call):
    return call.tool, call.document_id, call.position
  high = {place_of(call) for call in whole if call.gain >= least}
  rejected = {place_of(call) for call in whole if call.document_id in rejecting} - high
  path = write_run(
      tmp_path_factory.mktemp('run') / 'r', [DOCUMENTS[:2], DOCUMENTS[2:]],
      [call for call in whole if place_of(call) not in rejected], TAU_F, rejected,
      min_loss_no_call=least)
  for tool in LiveRun(path).read().tools:
    merged, _ = merge(DOCUMENTS, whole, {**dict.fromkeys(TAU_F, math.inf), tool.name: tau_f})
    calls, texts = sum(len(record.calls) for record in merged), len(merged)
    kept = tool.kept_calls(tau_f), tool.kept_texts(tau_f)
    unknown = tool.unknown_calls(tau_f), tool.unknown_texts(tau_f)
    assert kept[0] <= calls <= kept[0] + unknown[0] and kept[1] <= texts <= kept[1] + unknown[1]
    if tau_f >= least:
      assert (kept, unknown) == ((calls, texts), (0, 0))
