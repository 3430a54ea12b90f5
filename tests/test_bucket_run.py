"""Annotating, fine-tuning and evaluating in a bucket, killed and resumed: the results of a disk."""

import gc
import gzip
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from toolformer_jax import cli, sharding
from toolformer_jax.checkpoints.orbax import save_model
from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime import locks
from toolformer_jax.runtime.paths import as_path, files_under, upload
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.view.data import LiveRun

# With as many devices as conftest.py sets up: sums of gradients are then rounded alike.
SCRIPT = ('import sys, jax; jax.config.update("jax_num_cpu_devices", 8); '
          'from toolformer_jax.cli import main; sys.exit(main())')
TEXTS = [f'The {i}th cat of {name} sat on {i * 7} mats.'
         for i, name in enumerate(('Ann', 'Bo', 'Cy', 'Di', 'Ed', 'Flo'), 1)]
QUESTIONS = [{'ID': f'q{i}', 'Body': f'Xi has {i} cats.', 'Question': 'How many?', 'Answer': i}
             for i in range(1, 7)]
SETTINGS = """
CustomToolsConfig.functions = {'Upper': 'my_tools:upper'}
upper/ToolConfig.prompt = 'ROOT/upper.txt'
upper/ToolConfig.tau_s = 0.0
upper/ToolConfig.tau_f = -1000.0
upper/ToolConfig.k = 3
upper/ToolConfig.m = 12
AnnotationConfig.force_name = True
AnnotationConfig.chunk_documents = 2
FinetuneConfig.steps = 24
FinetuneConfig.batch_rows = 2
FinetuneConfig.row_tokens = 64
FinetuneConfig.save_every = 2
MixtureConfig.dev_texts = 1
GenerationConfig.top_k_api = 1
EvaluationConfig.number_tokens = 6
"""
# Measured times; names of checkpoints and hashes of their files, which have dates in them.
UNLIKE = {'step_s', 'tokens_per_s', 'mfu', 'sha256', 'checkpoint'}


def random_model():
  """A model whose tokens are the printable characters, so that calls are well-formed."""
  tokens = [*map(chr, range(33, 127)), 'Ġ', 'Ċ', 'Ġ[', '->', '<|endoftext|>']
  tokenizer = Tokenizer.byte_level_bpe(
      tokens, [('Ġ', '['), ('-', '>')], tokens[-1:], split_digits=True, bos_id=None,
      eos_id=len(tokens) - 1)
  config = DecoderConfig(vocab_size=len(tokens), layers=1, embed_dim=16, heads=2, kv_heads=1,
                         head_dim=8, mlp_dim=32, max_positions=1024, rotary_dim=8)
  init = jax.jit(Decoder(config).init)
  variables = sharding.unbox(init(jax.random.key(0), np.zeros((1, 2), np.int32)))
  return LanguageModel.from_variables(config, variables, tokenizer, sharding.make_mesh())


@pytest.fixture
def places(bucket, tmp_path, monkeypatch):
  """A folder on disk and one in a bucket, with the same inputs."""
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setattr(locks, 'LEASE_S', 4.0)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'my_tools.py').write_text('def upper(argument):\n  return argument.upper()\n')
  disk = tmp_path / 'disk'
  save_model(disk / 'model', random_model())
  lines = ''.join(json.dumps({'text': text}) + '\n' for text in TEXTS)
  (disk / 'corpus.jsonl.gz').write_bytes(gzip.compress(lines.encode(), mtime=0))
  (disk / 'upper.txt').write_text('Add calls to Upper.\n\nA cat is [Upper(cat)] CAT.\n')
  (disk / 'data' / 'svamp').mkdir(parents=True)
  (disk / 'data' / 'svamp' / 'SVAMP.json').write_text(json.dumps(QUESTIONS))
  for file in files_under(as_path(disk)):
    upload(file, as_path(bucket) / file.relative_to(disk))
  for root in (str(disk), bucket):
    (as_path(root) / 'settings.gin').write_bytes(SETTINGS.replace('ROOT', root).encode())
  return str(disk), bucket


def commands(root):
  """The three commands, each with a part of the name of a file that shows that it has begun."""
  settings = ['--gin_file', f'{root}/settings.gin', '--output_dir']
  yield 'sample', ['annotate', *settings, f'{root}/run', '--corpus', f'{root}/corpus.jsonl.gz',
                   '--checkpoint', f'{root}/model', '--tools', 'upper']
  yield 'commit_success', ['finetune', *settings, f'{root}/tuned', '--data', f'{root}/run',
                           '--checkpoint', f'{root}/model']
  yield '00000', ['evaluate', *settings, f'{root}/scores', '--checkpoint', f'{root}/tuned',
                  '--data_dir', f'{root}/data', '--tasks', 'svamp', '--tools', 'upper',
                  '--arms', f'base={root}/model,disabled,toolformer']


def run_killed(argv, sign):
  """Runs a command in another process until it has written a file, and kills that."""
  process = subprocess.Popen([sys.executable, '-c', SCRIPT, *argv], text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  folder, end = as_path(argv[4]), time.monotonic() + 240
  while process.poll() is None and time.monotonic() < end:
    if any(sign in str(file) for file in files_under(folder)):
      break
    time.sleep(0.05)
  process.kill()
  assert process.wait() == -9, process.stderr.read()


def normal(file, root):
  """The content of a file, without what differs between two runs that are equal."""
  text = file.read_bytes().decode().replace(root, 'ROOT')
  if file.name.endswith(('.json', '.jsonl')):
    return [_without(json.loads(line), UNLIKE) for line in
            (text.splitlines() if file.name.endswith('l') else [text])]
  return re.sub(r'\(sha256 \w{12}\)', '', text)


def _without(value, names):
  if isinstance(value, dict):
    return {name: _without(inner, names) for name, inner in value.items() if name not in names}
  return [_without(inner, names) for inner in value] if isinstance(value, list) else value


def results(root, folder):
  """What a run leaves, by the file's name: neither locks, times, settings nor binary files."""
  path = as_path(root) / folder
  names = {file.relative_to(path): file for file in files_under(path)}
  return {str(name): normal(file, root) for name, file in names.items()
          if file.suffix in ('.json', '.jsonl', '.md', '.tex') and 'steps' not in name.parts
          and 'variables' not in name.parts}


@pytest.mark.long
def test_killed_runs_in_a_bucket_end_like_runs_on_a_disk(places, capfd):
  disk, bucket = places
  for _, argv in commands(disk):
    assert cli.main(argv) == 0, capfd.readouterr().err
  for sign, argv in commands(bucket):
    run_killed(argv, sign)
    assert cli.main(argv) == 0, capfd.readouterr().err
    assert 'Waiting for at most 4 s' in capfd.readouterr().err
  for folder in ('run', 'tuned', 'scores'):
    there, here = results(bucket, folder), results(disk, folder)
    assert there.keys() == here.keys()
    for name, content in here.items():
      assert there[name] == content, name
  shown = [LiveRun(as_path(root) / 'run').read() for root in places]
  assert shown[0].texts == shown[1].texts != () and shown[0].tools == shown[1].tools
  for root in places:
    assert cli.main(['score', '--checkpoint', f'{root}/tuned', '--input', f'{root}/corpus.jsonl.gz',
                     '--output', f'{root}/scored.jsonl']) == 0
  assert (as_path(bucket) / 'scored.jsonl').read_bytes() == (
      as_path(disk) / 'scored.jsonl').read_bytes()
  mesh = sharding.make_mesh()
  one, two = (load_pretrained(f'{root}/tuned', mesh=mesh) for root in places)
  jax.tree.map(np.testing.assert_array_equal, one.variables, two.variables)
  first = load_pretrained(f'{disk}/model', mesh=mesh)
  assert any(np.any(np.asarray(a) != np.asarray(b)) for a, b in zip(
      jax.tree.leaves(one.variables), jax.tree.leaves(first.variables), strict=True))
  merged = [file for file in files_under(as_path(bucket) / 'run') if 'merged' in file.parts]
  assert any(b'Upper' in file.read_bytes() for file in merged)
  assert not [file for file in files_under(as_path(bucket)) if file.name.startswith('.lock')]
  gc.collect()  # the writer of TensorBoard uploads once more when it is deleted
  assert not [*pathlib.Path.cwd().glob('gs:*')] and os.getcwd() == str(pathlib.Path(disk).parent)
