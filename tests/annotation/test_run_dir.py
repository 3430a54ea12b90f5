"""A run's folder as its readers see it: finished chunks only, in the order of their numbers."""

import dataclasses
import json
from collections import Counter

import pytest

from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import DOCUMENTS
from toolformer_jax.annotation.stage_records import StageRecords
from toolformer_jax.data.records import Candidate, Document, SelectedText
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path
from toolformer_jax.runtime.run_dir import Shard

TOOLS = {'Calculator': {'tau_f': 0.5, 'k': 5}}


@pytest.fixture(params=['disk', 'bucket'])
def path(request, tmp_path):
  place = request.getfixturevalue('bucket') if request.param == 'bucket' else tmp_path
  with RunFolder(as_path(place) / 'run', {'tools': TOOLS}, {}) as folder:
    for chunk in (100000, 3, 99999):
      folder.write(DOCUMENTS, chunk, [Document(str(chunk), 'x')], Counter(documents=chunk))
    folder.log_time(DOCUMENTS, 3, 1.5)
    folder.log_time(DOCUMENTS, 3, 2.5)  # made again: the later time counts
    folder.log_time(DOCUMENTS, 99999, 1.0)
  return as_path(place) / 'run'


def test_chunks_are_read_in_the_order_of_their_numbers(path):
  reader = RunReader(path)
  assert reader.chunks(DOCUMENTS) == [3, 99999, 100000]
  assert [record.id for record in reader.documents()] == ['3', '99999', '100000']
  assert reader.read(DOCUMENTS, 3, Document) == [Document('3', 'x')]
  assert reader.counts(DOCUMENTS) == {'documents': 3 + 99999 + 100000}
  assert reader.counts(DOCUMENTS, [3]) == {'documents': 3}
  assert reader.seconds() == {DOCUMENTS: 3.5}


def test_several_processes_write_their_own_times(path):
  for index in range(2):
    with RunFolder(path, {'tools': TOOLS}, {}, Shard(index, 2)) as folder:
      folder.log_time(DOCUMENTS, index, 4.0)
  assert RunReader(path).seconds() == {DOCUMENTS: 3.5 + 8.0}


def test_a_stage_is_complete_with_its_chunks_wherever_it_is_taken_from(path, tmp_path):
  with RunFolder(as_path(tmp_path / 'other'), {'tools': TOOLS}, {}) as other:
    other.write(DOCUMENTS, 0, [Document('0', 'x')], Counter())
    other.complete(DOCUMENTS)
  target = path.with_name('new')
  with RunFolder(target, {'tools': TOOLS}, {}) as folder:
    folder.take_from(as_path(tmp_path / 'other'))
  reader = RunReader(target)
  assert reader.is_complete(DOCUMENTS) and reader.all_chunks(DOCUMENTS) == [0]
  assert reader.read(DOCUMENTS, 0, Document) == [Document('0', 'x')]


def test_unfinished_files_are_no_chunks(path):
  for name in ('00004.jsonl.tmp', '00005.counts.json', 'notes.jsonl', '6.jsonl'):
    (RunReader(path).folder(DOCUMENTS) / name).write_text('{')
  reader = RunReader(path)
  assert reader.chunks(DOCUMENTS) == [3, 99999, 100000] and not reader.is_complete(DOCUMENTS)
  assert [reader.has(DOCUMENTS, chunk) for chunk in (3, 4)] == [True, False]


def test_a_stage_that_has_not_begun_is_empty(path):
  reader = RunReader(path)
  assert reader.chunks('merged') == [] and not reader.is_complete('merged')
  assert list(reader.annotated()) == [] and reader.counts('merged') == {}


@pytest.mark.parametrize(('file', 'content'), [
  ('00003.counts.json', None), ('00003.counts.json', '{'), ('00003.counts.json', '[1]'),
  ('00003.counts.json', '{"documents": "2"}'), ('00003.jsonl', '{'), ('00003.jsonl', '{"id": 3}'),
  ('00003.jsonl', b'\xff')])
def test_a_damaged_file_is_named_with_a_remedy(path, file, content):
  damaged = RunReader(path).folder(DOCUMENTS) / file
  if content is None:
    damaged.unlink()
  else:
    damaged.write_bytes(content.encode() if isinstance(content, str) else content)
  reader = RunReader(path)
  message = f'{file}.*; remove the folder .*{DOCUMENTS}/.*, and'
  with pytest.raises(UserError, match=message) as raised:
    reader.counts(DOCUMENTS)
    list(reader.documents())
  assert '\n' not in str(raised.value)


def test_records_of_a_stage_are_a_sequence(path):
  with RunFolder(path, {'tools': TOOLS}, {}) as folder:
    folder.write('stage', 0, [Document(f'a{i}', 'one\u2028line') for i in range(3)], Counter())
    folder.write('stage', 2, [], Counter())
    folder.write('stage', 7, [Document(f'b{i}', 'x') for i in range(4)], Counter())
    records = StageRecords(folder, 'stage', Document)
    plain = list(records)
    assert [record.id for record in plain] == ['a0', 'a1', 'a2', 'b0', 'b1', 'b2', 'b3']
    assert len(records) == 7 and list(map(len, records.chunks())) == [3, 0, 4]
    assert [records[i] for i in range(-7, 7)] == plain + plain
    for cut in slice(None), slice(2, 5), slice(None, None, -2), slice(5, 1):
      assert records[cut] == plain[cut]
    for index in 7, -8:
      with pytest.raises(IndexError, match='is out of range for 7 records'):
        records[index]
    folder.write('stage', 8, [Document('c', 'x')], Counter())
    assert len(list(records)) == len(records) == 7  # of the chunks that were there


def test_calls_are_to_their_tool_in_texts_of_their_chunk(path):
  call = Candidate('3', 'Calculator', '1', 0, 0.5)
  with RunFolder(path, {'tools': TOOLS}, {}) as folder:
    for tool, record in (('Calculator', call), ('QA', call),
                         ('MT', dataclasses.replace(call, tool='MT', document_id='4'))):
      folder.write(f'{tool.lower()}/select', 3, [SelectedText('3', 0)], Counter())
      folder.write(f'{tool.lower()}/sample', 3, [record], Counter())
    assert folder.read_calls('Calculator', 'sample', 3) == [call]
    for tool in 'QA', 'MT':
      with pytest.raises(UserError, match=f'00003.jsonl has a call .* only have calls to {tool}'):
        folder.read_calls(tool, 'sample', 3)


def test_a_complete_stage_has_all_chunks(path):
  with RunFolder(path, {'tools': TOOLS}, {}) as folder:
    for chunk in range(3):
      folder.write('merged', chunk, [Document(f'{chunk}', 'x')], Counter())
    merged = folder.folder('merged')
    (merged / '00001.jsonl').rename(merged / '00007.jsonl')
    assert len(folder.annotated()) == 3  # so far
    folder.complete('merged')
    with pytest.raises(UserError, match='merged/.*/00001.jsonl is missing; remove the folder'):
      folder.annotated()
    (merged / '00007.jsonl').rename(merged / '00001.jsonl')
    assert [record.document.id for record in folder.annotated()] == ['0', '1', '2']
    folder.write('merged', 3, [], Counter())
    with pytest.raises(UserError, match='merged/.*/00003.jsonl is not a file of the run; remove'):
      folder.counts('merged')


def test_a_cut_line_of_the_log_is_passed_over(path):
  log = path / 'times.log'
  cut = b'{"folder": "documents", "chu\n5\n{"folder": "documents"}\n'
  log.write_bytes(log.read_bytes() + cut)
  assert RunReader(path).seconds() == {DOCUMENTS: 3.5}


def test_chunk_times_change_with_the_files(path):
  before = RunReader(path).chunk_times(DOCUMENTS)
  (RunReader(path).folder(DOCUMENTS) / '00003.jsonl').write_text('')
  after = RunReader(path).chunk_times(DOCUMENTS)
  assert before.keys() == after.keys()
  assert {chunk for chunk in before if before[chunk] != after[chunk]} == {3}


def test_settings_of_the_tools_are_those_of_run_json(path, tmp_path):
  assert RunReader(path).tool_settings() == TOOLS
  with pytest.raises(UserError, match='is not the output folder of an annotation run'):
    RunReader(tmp_path).tool_settings()
  (path / 'run.json').write_text(json.dumps({'configuration': {}}))
  with pytest.raises(UserError, match='run.json is broken, or was made by an earlier version'):
    RunReader(path).tool_settings()
