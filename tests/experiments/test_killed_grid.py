"""A grid that is killed three times ends with the same reports as one that is left alone."""

import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from toolformer_jax.checkpoints.loading import load_model

REPOSITORY = pathlib.Path(__file__).parents[2]
COMMAND = [sys.executable, '-m', 'toolformer_jax', 'experiment', '--gin_file', 'base.gin',
           '--gin_file', 'small.gin', '--arms', 'disabled,toolformer',
           '--gin.GridConfig.seeds=(0, 1)', "--gin.GridConfig.ablations=('no_call.gin',)",
           '--output_dir', 'runs']
# Orbax names its files at random, so that equal weights have another hash in each run.
HASH_OF_TRAINED = re.compile(rb'(`runs/stages/finetune-\w+`) \(sha256 \w+\)')
# An annotation, and for two seeds a training, Toolformer in two cells, and once without calls.
STAGES = 1 + 2 * (1 + 2 + 1)


def start():
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(REPOSITORY), '.'])}
  return subprocess.Popen(COMMAND, env=environment, stdout=subprocess.DEVNULL)


def done():
  return len(list(pathlib.Path('runs').glob('stages/*/stage.json')))


def kill_after(stages):
  """Kills the grid in the stage that follows so many; returns how many are done."""
  process = start()
  while done() < stages or len(list(pathlib.Path('runs').glob('stages/*'))) == done():
    assert process.poll() is None, 'the grid ended before it could be killed'
    time.sleep(0.02)
  process.kill()
  process.wait()
  return done()


def results():
  """Returns the reports, the tables and the predictions, by their paths."""
  root = pathlib.Path('runs')
  patterns = '**/report.md', '**/table*.tex', '**/config.gin', 'stages/*/predictions/*'
  return {path.relative_to(root): HASH_OF_TRAINED.sub(rb'\1', path.read_bytes())
          for pattern in patterns for path in root.glob(pattern)}


@pytest.mark.long
@pytest.mark.usefixtures('folder')
def test_a_grid_killed_three_times_ends_with_the_same_reports():
  assert start().wait() == 0 and done() == STAGES
  expected = results()
  assert len([path for path in expected if path.name == 'report.md']) > 5
  pathlib.Path('runs').rename('undisturbed')
  killed = [kill_after(stages) for stages in (0, 2, 6)]
  assert killed == sorted(set(killed)) and killed[-1] < STAGES
  assert start().wait() == 0
  assert results() == expected
  for path in pathlib.Path('runs').glob('stages/finetune-*'):
    weights, others = (load_model(root / path.relative_to('runs')).variables
                       for root in (pathlib.Path('runs'), pathlib.Path('undisturbed')))
    jax.tree.map(np.testing.assert_array_equal, weights, others)
