"""TensorBoard's files hold what metrics.jsonl holds; nothing needs TensorFlow."""

import json
import subprocess
import sys

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.training import metrics as boards
from toolformer_jax.training.metrics import MetricsLog, open_metric_writers


def test_tensorboard_shows_the_metrics(tmp_path):
  pytest.importorskip('tensorboardX')
  for first, steps in ((0, (1, 2, 3)), (2, (3, 4))):  # it was killed after step 2 was saved
    writers = open_metric_writers(tmp_path, first, '')
    with MetricsLog(tmp_path / 'metrics.jsonl', first, writers) as log:
      for step in steps:
        log.write(step, loss=1 / step)
  lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
  assert _shown(tmp_path / 'tensorboard') == {
      line['step']: pytest.approx(line['loss']) for line in lines}


def _shown(folder):
  """Returns the scalars of a folder, later files over earlier ones, as tensorboardX wrote them."""
  from tensorboardX.proto.event_pb2 import Event
  shown = {}
  for file in sorted(folder.iterdir()):
    data = file.read_bytes()
    while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
      size = int.from_bytes(data[:8], 'little')
      event = Event.FromString(data[12:12 + size])
      for value in event.summary.value:
        shown[event.step] = value.simple_value
      data = data[16 + size:]
  return shown


def test_neither_board_loads_tensorflow(tmp_path):
  code = ('import sys, pathlib; from toolformer_jax.training.metrics import open_metric_writers\n'
          f'folder = pathlib.Path({str(tmp_path)!r})\n'
          '[writer.close() for writer in open_metric_writers(folder, 0, "")]\n'
          'assert "tensorflow" not in sys.modules')
  subprocess.run([sys.executable, '-c', code], check=True)


def test_weights_and_biases_has_to_be_there_if_it_is_asked_for(tmp_path, monkeypatch):
  monkeypatch.setattr(boards.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match='wandb_project needs the package wandb'):
    open_metric_writers(tmp_path, 0, 'a-project')


def test_weights_and_biases_goes_on_with_the_same_run(tmp_path, monkeypatch):
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  for first in 0, 2:
    writers = open_metric_writers(tmp_path, first, 'p')
    with MetricsLog(tmp_path / 'metrics.jsonl', first, writers) as log:
      log.write(first + 1, loss=0.5)
  runs = [path.name.split('-')[-1] for path in (tmp_path / 'wandb').glob('offline-run-*')]
  assert len(runs) == 2 and len(set(runs)) == 1
