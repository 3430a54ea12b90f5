"""`toolformer plan`: what it prints, and what it says of what it cannot do."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from toolformer_jax import cli
from toolformer_jax.checkpoints.families.registry import write_config
from toolformer_jax.models.config import DecoderConfig

REPOSITORY = pathlib.Path(__file__).parents[2]
SMALL = DecoderConfig(
    vocab_size=96, layers=2, embed_dim=128, heads=2, kv_heads=2, head_dim=128, mlp_dim=256,
    max_positions=512, rotary_dim=128)


@pytest.fixture
def model(tmp_path):
  """A Hugging Face directory with the config.json of a small decoder, and no weights."""
  (tmp_path / 'small').mkdir()
  (tmp_path / 'small/config.json').write_text(json.dumps(write_config(SMALL)))
  return str(tmp_path / 'small')


def _command(model, *others):
  return ['plan', '--model', model, '--topology', 'v5e-8', '--step', 'train', '--batch', '16',
          '--length', '128', *others]


@pytest.mark.usefixtures('libtpu')
def test_standard_output_is_the_plan_alone(model):
  """In a process of its own: the compiler would write to the same terminal."""
  done = subprocess.run(
      [sys.executable, '-m', 'toolformer_jax', *_command(model, '--json')], text=True,
      capture_output=True, env={**os.environ, 'PYTHONPATH': str(REPOSITORY)}, check=False)
  assert done.returncode == 0, done.stderr
  line, = done.stdout.splitlines()
  plan = json.loads(line)
  assert plan['fits'] is True and plan['mesh'] == [1, 8, 1] and plan['topology'] == 'v5e:2x4'
  assert plan['attention_kernel'] is True
  assert plan['headroom'] == plan['usable'] - plan['arguments'] - plan['temporaries'] > 0
  assert plan['roofline']['tokens_per_s'] > 0
  assert len(done.stderr.splitlines()) == 1  # that it compiles


@pytest.mark.usefixtures('libtpu')
def test_the_table_says_what_it_is(model, capsys):
  assert cli.main(_command(model, '--mesh', '2,2,-1')) == 0
  out = capsys.readouterr().out
  assert 'data 2, fsdp 2, tensor 2' in out and 'not a measurement' in out
  for name in ('fits', 'memory', 'headroom', 'all-reduce', 'arithmetic', 'speed', 'compiled in'):
    assert f'\n{name} ' in out


@pytest.mark.usefixtures('libtpu')
def test_what_does_not_fit_is_an_answer(model, capsys):
  assert cli.main(_command(model, '--batch', str(2**22))) == 0
  out = capsys.readouterr().out
  assert 'no: Ran out of memory' in out and '15.75G' in out


@pytest.mark.usefixtures('libtpu')
def test_arguments_that_leave_no_room_do_not_fit(model, capsys):
  """A cache of 16 GiB, of which a step reads and writes a little."""
  options = ['--step', 'prefill', '--topology', 'v5e-1', '--batch', str(2**14), '--length', '512']
  assert cli.main(_command(model, *options, '--json')) == 0
  plan = json.loads(capsys.readouterr().out)
  assert not plan['fits'] and plan['arguments'] > 15.75 * 2**30 and '15.75' in plan['reason']


@pytest.mark.parametrize(('others', 'message'), [
    (['--topology', 'v5e:2x5'], "unknown topology 'v5e:2x5'"),
    (['--mesh', '1,3,1'], '--mesh 1,3,1 does not fit v5e:2x4: the product must be 8'),
    (['--mesh', '1,-1,3'], 'does not fit'),
    (['--mesh', '8'], 'is not of the form 1,8,1'),
    (['--mesh', '0,8,1'], 'positive sizes'),
    (['--length', '513'], 'has only 512 positions'),
    (['--batch', 'many'], "'many' is not a positive number"),
    (['--model', 'gpt_j'], "unknown model 'gpt_j': did you mean gptj_6b"),
    (['--model', 'no/such/folder'], 'there is no checkpoint no/such/folder')])
def test_an_error_is_one_line(libtpu, model, capsys, others, message):
  assert cli.main(_command(model, *others)) == 2
  captured = capsys.readouterr()
  assert not captured.out
  line, = captured.err.splitlines()
  assert line.startswith('error: ') and message in line
