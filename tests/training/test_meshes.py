"""One program from a device to several processes: the losses are the same, whatever happens."""

import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.experimental import topologies

from toolformer_jax import sharding
from toolformer_jax.checkpoints.orbax import load_orbax_model, save_model
from toolformer_jax.data.content_hash import content_fingerprint
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import finetune_examples

from .plain import plain_example

SETTINGS = FinetuneConfig(steps=20, batch_rows=8, row_tokens=32, learning_rate=1e-3, save_every=1)
TEXTS = [f'{i} and {i} make {i + i}, and twice that is {4 * i}.' for i in range(40)]
BINDINGS = [f'--gin.FinetuneConfig.{name}={getattr(SETTINGS, name)}'
            for name in ('steps', 'batch_rows', 'row_tokens', 'learning_rate', 'save_every')]
PATIENCE_S = 240


@pytest.fixture(scope='module')
def checkpoint(make_model, tmp_path_factory):
  """Saves a small model, and in the same folder the texts that it is trained on."""
  folder = tmp_path_factory.mktemp('meshes')
  save_model(folder / 'tiny', make_model())
  lines = [json.dumps({'id': str(i), 'text': text}) for i, text in enumerate(TEXTS)]
  (folder / 'texts.jsonl').write_text('\n'.join(lines) + '\n')
  return folder / 'tiny'


def _train_here(checkpoint, shape, folder):
  """Trains in this process, and returns the losses."""
  mesh = sharding.make_mesh(*shape, devices=jax.devices()[:np.prod(shape)])
  model = load_orbax_model(checkpoint, mesh)
  settings = SETTINGS if (folder / 'steps').exists() else dataclasses.replace(
      SETTINGS, save_every=100)
  trained = finetune_examples(
      model=model, examples=[plain_example(text, model.tokenizer) for text in TEXTS],
      config=settings, output_dir=folder,
      depends_on={'checkpoint': content_fingerprint(str(checkpoint))})
  assert trained is not None
  return _losses(folder)


def _losses(folder):
  lines = [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
  assert [line['step'] for line in lines] == list(range(1, SETTINGS.steps + 1))
  return [line['loss'] for line in lines]


@pytest.fixture(scope='module')
def undisturbed(checkpoint, tmp_path_factory):
  """The losses of a run on one device."""
  return _train_here(checkpoint, (1, 1, 1), tmp_path_factory.mktemp('one') / 'run')


@pytest.mark.parametrize('shape', [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_eight_devices_have_the_losses_of_one(checkpoint, undisturbed, shape, tmp_path):
  losses = _train_here(checkpoint, shape, tmp_path / 'run')
  assert losses[-1] < losses[0] - 0.1
  np.testing.assert_allclose(losses, undisturbed, atol=1e-5, rtol=0)


def _start(checkpoint, folder, devices, *more, **environment):
  argv = [sys.executable, '-m', 'toolformer_jax', 'finetune', '--data',
          checkpoint.with_name('texts.jsonl'), '--checkpoint', checkpoint, '--output_dir', folder,
          *BINDINGS, '--gin.MixtureConfig.dev_texts=0', *more]
  return subprocess.Popen(
      list(map(str, argv)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
      env={**os.environ, 'JAX_NUM_CPU_DEVICES': str(devices), **environment})


def _wait_for_step(folder, step, processes):
  """Waits until a run has done `step`, and returns while it is at work."""
  metrics, end = folder / 'metrics.jsonl', time.monotonic() + PATIENCE_S
  while not metrics.exists() or metrics.read_text().count('\n') < step:
    for process in processes:
      assert process.poll() is None, process.communicate()
    assert time.monotonic() < end
    time.sleep(0.002)


def test_killed_asked_to_stop_broken_and_moved_it_goes_on_with_the_same_losses(
    checkpoint, undisturbed, tmp_path, caplog):
  folder, draw = tmp_path / 'run', random.Random(7)
  process = _start(checkpoint, folder, 1)
  _wait_for_step(folder, draw.randint(2, 6), [process])
  process.kill()
  process.communicate()

  process = _start(checkpoint, folder, 8, *(
      f'--gin.ModelConfig.{axis}=2' for axis in sharding.MESH_AXES))
  _wait_for_step(folder, draw.randint(9, 12), [process])
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=PATIENCE_S)
  assert process.returncode == 0, err
  assert 'continues from the saved state' in out
  assert not (folder / 'model').exists()

  newest = max((folder / 'steps').iterdir(), key=lambda path: int(path.name))
  assert int(newest.name) < SETTINGS.steps
  for file in newest.rglob('*'):
    if file.is_file() and 'METADATA' not in file.name.upper():
      file.write_bytes(file.read_bytes()[:5])
  losses = _train_here(checkpoint, (1, 1, 1), folder)
  assert f'steps/{newest.name} cannot be read' in caplog.text
  np.testing.assert_allclose(losses, undisturbed, atol=1e-5, rtol=0)


def _start_cluster(checkpoint, folder):
  """Starts two processes of four devices each on a mesh of 2 x 2 x 2."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  axes = [f'--gin.ModelConfig.{axis}=2' for axis in sharding.MESH_AXES]
  return [_start(checkpoint, folder, 4, '--distributed', *axes, JAX_COORDINATOR_ADDRESS=address,
                 JAX_NUM_PROCESSES='2', JAX_PROCESS_ID=str(index)) for index in range(2)]


def _ended(processes):
  """Returns what each process printed."""
  outcomes = [process.communicate(timeout=PATIENCE_S) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outcomes
  return [out.splitlines()[-1:] for out, _ in outcomes]


def test_two_processes_have_the_losses_of_one_and_stop_together(checkpoint, undisturbed, tmp_path):
  folder = tmp_path / 'run'
  processes = _start_cluster(checkpoint, folder)
  _wait_for_step(folder, 5, processes)
  processes[1].send_signal(signal.SIGTERM)  # one machine is taken away: all have to stop
  stopped = 'The same command continues from the saved state.'
  assert all(line.startswith('Stopped after ') and line.endswith(stopped)
             for (line,) in _ended(processes))
  assert not (folder / 'model').exists()

  first, second = _ended(_start_cluster(checkpoint, folder))
  assert first[0].endswith(f'The checkpoint is in {folder}.') and second == []
  np.testing.assert_allclose(_losses(folder), undisturbed, atol=1e-5, rtol=0)
  alone = load_orbax_model(folder, sharding.make_mesh(devices=jax.devices()[:1]))
  assert alone.config.layers == 2


def test_slices_divide_the_data_axis_or_else_fsdp(monkeypatch):
  pytest.importorskip('libtpu')
  monkeypatch.setenv('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  monkeypatch.setenv('TPU_SKIP_MDS_QUERY', '1')
  devices = topologies.get_topology_desc(
      platform='tpu', topology_name='v5e:2x4', num_slices=2).devices
  def slices(*shape):
    mesh = sharding.make_mesh(*shape, devices=devices)
    return np.vectorize(lambda device: device.slice_index)(mesh.devices)
  across_data, across_fsdp = slices(2, 8, 1), slices(1, 16, 1)
  assert [set(across_data[i].flat) for i in range(2)] == [{0}, {1}]
  assert [set(across_fsdp[0, i:i + 8].flat) for i in (0, 8)] == [{0}, {1}]
  with pytest.raises(ValueError, match='2 slices divide neither'):
    slices(1, 1, 16)
