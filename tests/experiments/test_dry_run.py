"""The whole paper with the gin file of GPT-2 774M: all stages, arms, tables, and one report.

The model has that size's positions, vocabulary and head size, and fewer and narrower layers; the
same script makes it in the true shape.
"""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from toolformer_jax.checkpoints.pretrained import pretrained_config
from toolformer_jax.models.presets import PRESETS

REPOSITORY = pathlib.Path(__file__).parents[2]
TOOLS = ('Calculator', 'Calendar', 'MT', 'QA', 'WikiSearch')
# A table's title, and the names of its rows for our own figures.
ROWS = {'Table 2': TOOLS, 'Table 3': ('SQuAD', 'Google-RE', 'T-REx'),
        'Table 4': ('ASDiv', 'SVAMP', 'MAWPS'), 'Table 5': ('WebQS', 'NQ', 'TriviaQA'),
        'Table 6': ('MLQA Es', 'MLQA Hi', 'MLQA Zh', 'MLQA De (all English)'),
        'Table 7': ('TempLAMA', 'Dateset'), 'Table 8': ('WikiText', 'held-out corpus')}


@pytest.fixture(scope='module')
def folder(tmp_path_factory, smollm2_path):
  path = tmp_path_factory.mktemp('dry') / 'run'
  script = REPOSITORY / 'experiments' / 'dry_run.py'
  done = subprocess.run(
      [sys.executable, str(script), '--output_dir', str(path), '--layers', '2', '--width', '128'],
      env={**os.environ, 'PYTHONPATH': str(REPOSITORY)}, capture_output=True, text=True,
      check=False)
  assert done.returncode == 0, done.stderr[-5000:]
  return path


def sections(folder):
  """Returns the sections of the report by their titles."""
  parts = re.split(r'^## ((?:Table|Figure) \d+)', (folder / 'all' / 'all.md').read_text(),
                   flags=re.MULTILINE)
  return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.long
def test_positions_vocabulary_and_heads_are_those_of_gpt2_774m(folder):
  made, true = pretrained_config(str(folder / 'base')), PRESETS['gpt2_774m']
  for field in ('vocab_size', 'max_positions', 'head_dim', 'positions', 'norm', 'tied_head'):
    assert getattr(made, field) == getattr(true, field)


@pytest.mark.long
def test_every_tool_is_called_and_its_calls_are_learned(folder):
  lines = [json.loads(line) for path in sorted((folder / 'calls' / 'merged').rglob('*.jsonl'))
           for line in path.read_text().splitlines()]
  assert len(lines) == 20
  assert {call['tool'] for line in lines for call in line['calls']} == {*TOOLS}
  for arm in ('toolformer', 'cc', 'three_tools'):
    assert 'Trained 2 steps' in (folder / arm / 'report.md').read_text()


@pytest.mark.long
def test_every_table_has_figures_of_ours(folder):
  found = sections(folder)
  assert list(found) == [f'Table {i}' for i in range(2, 11)] + ['Figure 4']
  assert not any('Not done' in text or 'failed' in text for text in found.values())
  for title, names in ROWS.items():
    for name in names:
      rows = re.findall(rf'^\| {re.escape(name)} \|.*\d.*$', found[title], re.MULTILINE)
      assert rows, (title, name)
  for title in ('Table 3', 'Table 4', 'Table 5', 'Table 7'):
    assert len(re.findall(r'^\| [^|]+ \| (?:base|\+ CC|Toolformer(?: \(disabled\))?) \| \d+ \| \d',
                          found[title], re.MULTILINE)) >= 4 * len(ROWS[title]) - 4
  for k in (0, 1, 3, 10):
    assert len(re.findall(rf'^\| {k} \| \d', found['Table 9'], re.MULTILINE)) == 2
  assert len(re.findall(r'^\| \w+\(.*\) \| .* \| -?\d', found['Table 10'], re.MULTILINE)) >= 10
  for family in ('LAMA', 'Math', 'QA'):
    assert f'| {family} | ours | 774 | ' in found['Figure 4']
