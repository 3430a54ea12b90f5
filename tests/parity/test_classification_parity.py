"""A model that is tuned to classify here is the one that PEFT tunes."""

import csv
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from toolformer_jax.checkpoints.orbax import save_model

REPOSITORY = pathlib.Path(__file__).parents[2]
TEXTS = {'card_lost': 'I lost the card {}.', 'top_up': 'Can I add {} pounds?',
         'card_payment_wrong_rate': 'The rate of payment {} was wrong!'}


def write_split(path, numbers):
  """Writes a split of Banking77, sorted by label."""
  with path.open('w', newline='') as file:
    csv.writer(file).writerows([('text', 'category'), *(
        (text.format(number), label) for label, text in TEXTS.items() for number in numbers)])


def test_peft_tunes_to_the_same_losses_and_labels(make_model, tmp_path):
  folder = tmp_path / 'banking77'
  folder.mkdir()
  write_split(folder / 'train.csv', range(1, 2000, 99))
  write_split(folder / 'test.csv', range(5, 2000, 97))
  save_model(tmp_path / 'model', make_model())
  subprocess.run(
      [sys.executable, 'experiments/classification_parity.py', '--task', 'banking77', '--data_dir',
       tmp_path, '--output_dir', tmp_path / 'run', '--checkpoint', tmp_path / 'model', '--steps',
       '8', '--batch_rows', '2', '--row_tokens', '128', '--rank', '4', '--limit', '30'],
      cwd=REPOSITORY, check=True)
  result = json.loads((tmp_path / 'run' / 'result.json').read_text())
  ours, theirs = result['ours'], result['theirs']
  assert result['questions'] == 30 and len(ours['losses']) == 8
  assert ours['losses'][-1] < 0.99 * ours['losses'][0]
  np.testing.assert_allclose(ours['losses'], theirs['losses'], rtol=1e-5)
  assert result['equal_predictions'] == 1 and result['accuracy_difference'] == 0
  assert ours['accuracy'] == pytest.approx(theirs['accuracy'])
