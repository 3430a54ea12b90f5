"""A run of texts with media: calls see the table of their text, and results depend on the files."""

import json
import pathlib
import shutil

import pytest

import toolformer_jax as tf_jax
from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.data.corpus import corpus_hash, read_corpus
from toolformer_jax.errors import UserError
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.executor import Executor, Request
from toolformer_jax.training.sources import as_texts

from ..media.made_files import picture, sound
from .killed import killed_after

COLORS = ('red', 'green', 'blue')
CONFIG = tf_jax.AnnotationConfig(
    force_name=True, max_text_tokens=60, max_call_tokens=6, temperature=3.0, preselect=False,
    window_documents=2, chunk_documents=2)
TOOL_CONFIG = tf_jax.ToolConfig(tau_s=0.0, k=3, m=4, tau_f=-10.0)
PROMPT = tf_jax.Prompt('Look', CALCULATOR.instruction.replace('Calculator', 'Look'),
                       ('One is [Look(1)] 1.',))


@pytest.fixture(scope='module')
def model(make_eager_model):
  return make_eager_model(max_positions=8192)


@pytest.fixture
def corpus(tmp_path):
  folder = tmp_path / 'corpus'
  folder.mkdir()
  rows = []
  for color in COLORS:
    (folder / f'{color}.png').write_bytes(picture(color=color))
    rows.append({'id': color, 'text': 'The sign (image 1) is here.', 'media': [f'{color}.png']})
  rows.append({'id': 'long', 'text': 'Long words. ' * 12 + '(image 1)', 'media': ['red.png']})
  rows.append({'id': 'none', 'text': 'No sign is here.'})
  (folder / 'c.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return folder / 'c.jsonl'


def look(argument, context):
  """Answers with the hash of the first picture, whatever the random model asks."""
  return context.media.resolve('image 1', 'image').sha256[:8]


def annotate(model, corpus, path, **arguments):
  return tf_jax.annotate(
      model, lambda: read_corpus(corpus), tools=[tf_jax.tool(look, name='Look')],
      prompts={'look': PROMPT}, tool_configs={'look': TOOL_CONFIG}, config=CONFIG,
      output_dir=path, depends_on={'corpus': corpus_hash(str(corpus))}, **arguments)


def files(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes()
          for path in sorted(pathlib.Path(folder).rglob('*'))
          if path.is_file() and path.name not in ('times.log', 'media_folder')}


def test_calls_see_the_media_of_their_text(model, corpus, tmp_path):
  result = annotate(model, corpus, tmp_path / 'run')
  by_id = {document.id: document for document in result.documents}
  executed = [call for call in RunReader(tmp_path / 'run').calls('Look', 'execute')]
  called = {call.document_id for call in executed}
  assert called <= set(by_id) and {'blue', 'green', 'none'} <= called
  for call in executed:
    media = by_id[call.document_id].media
    assert call.result == (media[0].sha256[:8] if media else None)
  assert {call.failure for call in executed if call.document_id == 'none'} == {
      'Look: no image 1: this document has no media'}
  assert [document.media[0].path for document in result.documents
          if document.id.startswith('long')] == ['red.png'] * 3  # each piece has the table
  for record in result.annotated:  # the text of a record is that of the corpus
    assert record.document.text == by_id[record.document.id].text
    assert record.document.media == by_id[record.document.id].media
  records = b''.join(data for name, data in files(tmp_path / 'run').items() if '.jsonl' in name)
  assert str(corpus.parent).encode() not in records  # a corpus can be moved
  assert len(as_texts(result)) == len(as_texts(str(tmp_path / 'run'))) == len(result.annotated)


@pytest.mark.parametrize('writes', [1, 4, 9, 12])
def test_a_killed_run_ends_with_the_same_files(model, corpus, tmp_path, writes):
  annotate(model, corpus, tmp_path / 'whole')
  with killed_after(writes, KeyboardInterrupt):
    annotate(model, corpus, tmp_path / 'killed')
  annotate(model, corpus, tmp_path / 'killed')
  assert files(tmp_path / 'killed') == files(tmp_path / 'whole')


def test_another_file_behind_a_handle_is_refused_by_name(model, corpus, tmp_path):
  annotate(model, corpus, tmp_path / 'run')
  annotate(model, corpus, tmp_path / 'run')
  (corpus.parent / 'green.png').write_bytes(picture(color='black'))
  with pytest.raises(UserError, match=r'green\.png: the file has changed'):
    annotate(model, corpus, tmp_path / 'run')
  with pytest.raises(UserError, match=r'green\.png: the file has changed'):
    annotate(model, corpus, tmp_path / 'other', start_from=tmp_path / 'run')


def test_another_file_is_refused_too_where_a_tool_was_added(model, corpus, tmp_path):
  annotate(model, corpus, tmp_path / 'run', stages=['sample'])
  for file in (tmp_path / 'run').rglob('look/select/*/.COMPLETED'):
    file.unlink()  # as of a tool whose texts are not chosen yet
  (corpus.parent / 'green.png').write_bytes(picture(color='black'))
  with pytest.raises(UserError, match=r'green\.png: the file has changed'):
    annotate(model, corpus, tmp_path / 'run')


def test_a_moved_corpus_is_found_after_a_note(model, corpus, tmp_path):
  annotate(model, corpus, tmp_path / 'run', stages=['sample'])
  shutil.move(corpus.parent, tmp_path / 'moved')
  moved = tmp_path / 'moved/c.jsonl'
  with pytest.raises(UserError, match='write its folder to'):
    annotate(model, moved, tmp_path / 'run')
  (tmp_path / 'run/media_folder').write_text(f'{tmp_path / "moved"}\n')
  annotate(model, moved, tmp_path / 'run')
  annotate(model, moved, tmp_path / 'whole')
  assert files(tmp_path / 'run') == files(tmp_path / 'whole')


def test_records_of_others_reach_nothing_outside_of_the_folder(model, corpus, tmp_path):
  annotate(model, corpus, tmp_path / 'run', stages=['sample'])
  run = RunReader(tmp_path / 'run')
  file = run.chunk_file('documents', 0)
  (tmp_path / 'secret.png').write_bytes(picture(color='white'))
  file.write_text(file.read_text().replace('"red.png"', '"../secret.png"'))
  run.counts_file('documents', 0).unlink()
  with pytest.raises(UserError, match='must stay in the folder'):
    annotate(model, corpus, tmp_path / 'run')


def test_media_of_several_folders_are_refused(model, corpus, tmp_path):
  (tmp_path / 'a.wav').write_bytes(sound(0.1))
  (tmp_path / 'd.jsonl').write_text(json.dumps({'text': 'A (audio 1).', 'media': ['a.wav']}))
  documents = [*read_corpus(corpus), *read_corpus(tmp_path / 'd.jsonl')]
  with pytest.raises(UserError, match='must be in one folder'):
    tf_jax.annotate(model, documents, tools=[tf_jax.tool(look, name='Look')],
                    prompts={'look': PROMPT}, tool_configs={'look': TOOL_CONFIG}, config=CONFIG)


def test_documents_in_memory_have_media(model, corpus, tmp_path):
  media = tf_jax.MediaTable.from_files([corpus.parent / 'blue.png']).media
  result = tf_jax.annotate(
      model, tf_jax.Document('a', 'The sign (image 1) is here.', media=media),
      tools=[tf_jax.tool(look, name='Look')], prompts={'look': PROMPT},
      tool_configs={'look': TOOL_CONFIG}, config=CONFIG, output_dir=tmp_path / 'run')
  assert {call.result for call in result.annotated[0].calls} == {media[0].sha256[:8]}


def test_a_store_has_a_result_for_each_file_behind_a_handle(tmp_path):
  tables = [tf_jax.MediaTable.from_bytes([picture(color=color)], tmp_path) for color in COLORS]
  tool, store = tf_jax.tool(look, name='Look'), CallStore(tmp_path / 'calls.sqlite')
  store.add_tool(tool)
  requests = [Request('Look', 'image 1', tf_jax.Context(media=table)) for table in tables]
  with Executor([tool], store=store) as executor:
    first = [outcome.result for outcome in executor.run(requests + requests)]
  assert len(set(first)) == 3 and first[:3] == first[3:]
  store.close()
  replay = CallStore(tmp_path / 'calls.sqlite', replay=True)
  with Executor([replay.replayed_tool('look')], store=replay) as executor:
    assert [outcome.result for outcome in executor.run(requests)] == first[:3]
    with pytest.raises(UserError, match='not among the recorded calls'):
      executor.run([Request('Look', 'image 1', tf_jax.Context())])
  replay.close()
