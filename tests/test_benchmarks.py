"""Every benchmark can be imported, and its own side runs."""

import json
import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / 'benchmarks'
# The other side, in modules that need torch.
THEIRS = {'transformers_inference', 'transformers_training'}
NAMES = sorted({path.stem for path in FOLDER.glob('*.py')} - THEIRS)
SMALL = {
    'adapter_stack': ('--rows', '2', '--tokens', '3', '--adapters', '2', '--rank', '2'),
    'annotation': ('--texts', '2', '--k', '1', '--m', '1'),
    'call_sampling': ('--texts', '1', '--k', '1', '--m', '1'),
    'decoding': ('--rows', '1', '--tokens', '4'),
    'finetuning': ('--model', 'gpt2_124m', '--rows', '1', '--tokens', '32', '--steps', '1'),
    'generation': ('--prompts', '1', '--slots', '1', '--max_tokens', '3'),
    'inference': ('--step', 'decode', '--batch', '1', '--length', '32', '--runs', '1'),
    'prefill': ('--tokens', '16', '--prompts', '1'),
}


def test_every_benchmark_can_be_imported():
  done = subprocess.run([sys.executable, '-c', '\n'.join(f'import {name}' for name in NAMES)],
                        cwd=FOLDER, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize('name', SMALL)
def test_its_own_side_runs(name, smollm2_path):
  done = subprocess.run([sys.executable, FOLDER / f'{name}.py', *SMALL[name],
                         '--side', 'stack' if name == 'adapter_stack' else 'ours'],
                        capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout.splitlines()[-1])['seconds'] > 0
