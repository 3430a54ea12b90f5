"""A finished run whose files were damaged is read as it was, or refused in one line."""

import contextlib
import pathlib
import shutil

import jax
import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax.annotation.filter import score_calls
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import (
  Candidate,
  Document,
  ExecutedCall,
  ScoredCall,
  from_json,
  to_json,
)
from toolformer_jax.errors import UserError
from toolformer_jax.training.metrics import MetricsLog, read_metrics
from toolformer_jax.training.sources import read_texts
from toolformer_jax.view.data import LiveRun
from toolformer_jax.view.server import respond

TEXTS = [f'There are {i} and {i + 7} ducks. In all there are {2 * i + 7} ducks.' for i in range(4)]


@pytest.fixture(scope='module')
def model(make_eager_model):
  return make_eager_model(max_positions=8192)


@pytest.fixture(scope='module')
def annotate(model):
  def run(path):
    return tf_jax.annotate(
        model, TEXTS, tools=[tf_jax.tool(lambda argument: f'<{argument[:5]}>', name='Calculator')],
        output_dir=path, tool_configs={
            'calculator': tf_jax.ToolConfig(tau_s=0.0, k=3, m=4, tau_f=-1.0)},
        config=tf_jax.AnnotationConfig(force_name=True, max_text_tokens=60, max_call_tokens=6,
                                       temperature=3.0, preselect=False, window_documents=2,
                                       chunk_documents=2))
  return run


@pytest.fixture(scope='module')
def finished(annotate, tmp_path_factory):
  path = tmp_path_factory.mktemp('finished') / 'run'
  result = annotate(path)
  assert result.complete and sum(len(record.calls) for record in result.annotated) > 3
  return path


def annotated_again(annotate, path):
  result = annotate(path)
  return result.report, list(result.documents), list(result.annotated), result.to_records()


def seen(path):
  """Returns what `view` shows; of a stage that is not complete, it says so."""
  run = LiveRun(path).read()
  assert respond(LiveRun(path), 'localhost', '/')[0] == 200
  unfinished = [stage.name for stage in run.stages if not stage.is_complete]
  return ('not complete',) if unfinished else (run.texts, run.tools)


def readings(annotate, path) -> dict[str, object]:
  """Returns what each reader of a run finds, or its UserError."""
  found = {}
  readers = {
      'view': lambda: seen(path),
      'finetune': lambda: list(read_texts(str(path))),
      'annotate': lambda: annotated_again(annotate, path)}
  for name, read in readers.items():
    try:
      found[name] = read()
    except UserError as error:
      found[name] = error
      assert '\n' not in str(error)
      assert str(path) in str(error)  # the file, or its folder
  return found


def check(annotate, path, whole, change):
  for name, value in readings(annotate, path).items():
    told = isinstance(value, UserError) or value == ('not complete',)
    assert told or value == whole[name], (change, name)


def changes(content: bytes):
  """Yields damaged versions of a file; None stands for its loss."""
  yield None
  yield b''
  yield content[:len(content) // 2]
  yield content.rpartition(b'\n')[0].rpartition(b'\n')[0] + b'\n'  # without its last line
  yield b'\xff' + content
  yield content + content
  for at in range(0, len(content), max(1, len(content) // 3)):
    yield content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]


def test_damaged_files_are_noticed_wherever_they_matter(annotate, finished, tmp_path):
  whole = readings(annotate, finished)
  assert not any(isinstance(value, UserError) for value in whole.values())
  names = [path.relative_to(finished) for path in sorted(finished.rglob('*'))
           if path.is_file() and not path.name.startswith(('.lock', '.turn'))]
  assert len(names) > 25
  for name in names:
    for number, damaged in enumerate(changes((finished / name).read_bytes())):
      path = tmp_path / 'run'
      shutil.copytree(finished, path)
      if damaged is None:
        (path / name).unlink()
      else:
        (path / name).write_bytes(damaged)
      check(annotate, path, whole, (str(name), number))
      shutil.rmtree(path)


def strays(folder: pathlib.Path):
  """Yields functions that add something to `folder` that no run writes."""
  for name in ('notes.txt', '12.jsonl', '00099.jsonl', '00099.counts.json', 'x.jsonl', '00000.tmp',
               '.lock', '\u0661\u0662\u0663\u0664\u0665.jsonl', '9' * 200 + '.jsonl'):
    yield lambda file=folder / name: file.write_bytes(b'\xff{')
  yield lambda: (folder / '00098.jsonl').mkdir()
  yield lambda: (folder / '00097.jsonl').symlink_to('nowhere')
  for file in folder.glob('00000.jsonl'):
    yield lambda file=file: shutil.copy(file, file.with_name('00003.jsonl'))


def test_stray_files_are_named_or_ignored(annotate, finished, tmp_path):
  whole = readings(annotate, finished)
  folders = [path.relative_to(finished) for path in [finished, *finished.rglob('*')]
             if path.is_dir()]
  path = tmp_path / 'run'
  for folder in folders:
    for number, _ in enumerate(strays(finished / folder)):
      shutil.copytree(finished, path)
      [*strays(path / folder)][number]()
      check(annotate, path, whole, (str(folder), number))
      shutil.rmtree(path)


@pytest.mark.parametrize('content', [b'\xff\xfe', b'{"stage": "documents", "chunk": 1e999}',
                                     b'[' * 100_000, b'{"stage": 1, "chunk": 0, "seconds": NaN}'])
def test_a_broken_log_of_times_harms_nothing(annotate, finished, tmp_path, content):
  shutil.copytree(finished, tmp_path / 'run')
  (tmp_path / 'run/times.log').write_bytes(content)
  assert annotate(tmp_path / 'run').time_table


def test_a_chunk_of_somebody_else_has_no_counts_file_and_is_checked(annotate, finished, tmp_path):
  path = tmp_path / 'run'
  shutil.copytree(finished, path)
  shutil.rmtree(path / 'merged')
  shutil.rmtree(path / 'calculator/filter')
  file, = path.glob('calculator/execute/*/00000.jsonl')
  lines = file.read_text().splitlines(keepends=True)
  file.write_text(lines[0])
  with pytest.raises(UserError, match='00000.jsonl does not have the .* records that were written'):
    annotate(path)
  file.with_suffix('.counts.json').unlink()
  with contextlib.suppress(UserError):  # the report has no counts of it
    annotate(path)
  filtered, = path.glob('calculator/filter/*/00000.jsonl')
  assert filtered.read_text().count('\n') <= 1
  shutil.rmtree(path / 'calculator/filter')
  file.write_text(lines[0].replace('"position": ', '"position": 1000'))
  with pytest.raises(UserError, match=r'call at position 1000\d+ of the text .text-0., which'):
    annotate(path)


@pytest.mark.parametrize(('name', 'value', 'message'), [
  ('position', -1, 'position is -1'), ('position', True, 'position is True'),
  ('probability', 1.5, 'probability is 1.5'), ('probability', -0.1, 'probability is -0.1'),
  ('probability', float('nan'), 'probability is nan'), ('loss_call', float('inf'), 'loss_call is'),
  ('loss_no_call', float('nan'), 'loss_no_call is nan'), ('loss_result', 10**400, 'loss_result is'),
])
def test_impossible_values_are_refused(name, value, message):
  call = ScoredCall('d', 'Calculator', '1', 0, 0.5, '1', loss_no_call=2.0, loss_call=1.5,
                    loss_result=1.0)
  with pytest.raises((TypeError, ValueError), match=message):
    from_json(ScoredCall, to_json(call) | {name: value})
  assert from_json(Candidate, to_json(call)).probability == 0.5


@pytest.mark.parametrize('content', [b'\xff\xfe\n', b'5\n', b'{"step": 1}\n', b'{', b'[' * 100_000])
def test_metrics_that_are_broken_are_named(tmp_path, content):
  (tmp_path / 'metrics.jsonl').write_bytes(content)
  with pytest.raises(UserError, match='metrics.jsonl'):
    read_metrics(tmp_path / 'metrics.jsonl')
  with contextlib.suppress(UserError), MetricsLog(tmp_path / 'metrics.jsonl', 1):
    pass


def test_a_loss_that_is_not_a_number_is_an_error(make_model):
  broken = make_model(max_positions=8192)
  broken.variables['params'] = jax.tree.map(lambda leaf: leaf * np.nan, broken.variables['params'])
  with pytest.raises(UserError, match='the model gives a loss that is not a number'):
    score_calls([ExecutedCall('d', 'Calculator', '1', 1, 0.5, '1')], [Document('d', 'abc')],
                model=broken, syntax=DEFAULT_SYNTAX)
