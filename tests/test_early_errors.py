"""A wrong option is an error at once: before JAX, a model or TensorFlow is loaded."""

import importlib.util
import json
import resource
import subprocess
import sys

import pytest

MOST_SECONDS = 2.0  # of a processor: other work on the machine does not count
SLOW = ('jax', 'flax', 'tensorflow', 'seqio', 'torch')

EVALUATE = ['evaluate', '--tasks', 'svamp', '--checkpoint', 'model', '--data_dir', 'data',
            '--output_dir', 'o']
ANNOTATE = ['annotate', '--corpus', 'c.jsonl', '--checkpoint', 'model', '--tools', 'calculator',
            '--output_dir', 'o']
FINETUNE = ['finetune', '--data', 'c.jsonl', '--checkpoint', 'model', '--output_dir', 'o']
SCORE = ['score', '--checkpoint', 'model', '--input', 'c.jsonl', '--output', 'out.jsonl']
GENERATE = ['generate', '--checkpoint', 'model', '--tools', 'calculator', '--prompt', 'a']
EXPORT = ['export', '--checkpoint', 'model', '--output_dir', 'o']
SERVE = ['serve', '--checkpoint', 'model', '--port', '0']
NO_FOLDER = 'there is no folder nowhere'
NO_MODULE = ('there is no Python module no_module' if importlib.util.find_spec('seqio') else
             'needs the package seqio')
CASES = [
    # Settings and gin files.
    (EVALUATE, ['--gin.EvaluationConfig.number_tokens=0'], 'number_tokens must be between'),
    (ANNOTATE, ['--gin.calculator/ToolConfig.k="a"'], 'ToolConfig.k must be'),
    (FINETUNE, ['--gin.FinetuneConfig.stepps=1'], "unknown parameter of FinetuneConfig 'stepps'"),
    (GENERATE, ['--gin.GenerationConfig.temperature=-1'], 'temperature must be between'),
    (FINETUNE, ['--gin_file', 'nothing.gin'], "unknown gin file 'nothing.gin'"),
    # Models.
    *((command, ['--checkpoint', 'nowhere'], NO_FOLDER)
      for command in (EVALUATE, ANNOTATE, FINETUNE, SCORE, GENERATE, EXPORT, SERVE)),
    (EVALUATE, ['--arms', 'toolformer=nowhere'], NO_FOLDER),
    (EVALUATE, ['--arms', 'toolformerr'], "unknown arm 'toolformerr'"),
    (FINETUNE, ['--teacher', 'no/model'], '--teacher: there is no checkpoint no/model'),
    (SCORE, ['--checkpoint', 'file'], 'file is not a checkpoint: give a Hugging Face directory'),
    (SCORE, ['--checkpoint', 'empty'], 'the folder is empty'),
    # Data.
    (ANNOTATE, ['--corpus', 'nothing.jsonl'], 'there is no file nothing.jsonl'),
    (FINETUNE, ['--data', 'nothing.jsonl'], 'there is no file nothing.jsonl'),
    (FINETUNE, ['--dev', 'nothing.jsonl'], 'there is no file nothing.jsonl'),
    (FINETUNE, ['--data', 'seqio:no_module:task'], NO_MODULE),
    (ANNOTATE, ['--corpus', 'broken.jsonl'], 'broken.jsonl:1: not JSON'),
    (SCORE, ['--input', 'broken.jsonl'], 'broken.jsonl:1: not JSON'),
    (GENERATE[:-2], ['--input', 'nothing.jsonl'], 'cannot read nothing.jsonl'),
    (EVALUATE, ['--data_dir', 'nowhere'], 'no folder nowhere, which should hold nowhere/svamp'),
    (EVALUATE, ['--tasks', 'asdiv'], 'looked for data/asdiv; ASDiv: fetch dataset/ASDiv.xml'),
    # Tasks, tools and their prompts.
    (EVALUATE, ['--tasks', 'svampp'], "unknown task 'svampp': did you mean svamp"),
    *((command, ['--tools', 'calculater'], "unknown tool 'calculater'")
      for command in (EVALUATE, ANNOTATE, GENERATE)),
    (ANNOTATE, ['--gin.calculator/ToolConfig.prompt="p.txt"'], 'cannot read the prompt p.txt'),
    # Output folders and files.
    *((command, ['--output_dir', 'file'], 'file is a file')
      for command in (EVALUATE, ANNOTATE, FINETUNE)),
    (EXPORT, ['--output_dir', 'data'], 'data exists already'),
    (SCORE, ['--output', 'no/out.jsonl'], 'there is no folder no')]


@pytest.fixture
def workplace(tmp_path):
  for name in ('data/svamp', 'model', 'empty'):
    (tmp_path / name).mkdir(parents=True)
  (tmp_path / 'model' / 'config.json').write_text('{}')
  (tmp_path / 'c.jsonl').write_text('{"text": "1 + 2 equals 3"}\n')
  (tmp_path / 'broken.jsonl').write_text('{"text": \n')
  (tmp_path / 'file').write_text('')
  return tmp_path


def run(code, cwd):
  done = subprocess.run([sys.executable, '-c', code], cwd=cwd, capture_output=True, text=True,
                        check=False)
  assert done.returncode == 0, done.stderr
  return done.stdout


def test_every_wrong_option_is_refused_before_anything_slow_is_loaded(workplace):
  code = f'''
import contextlib, io, json, sys
from toolformer_jax.cli import main
for command, wrong, message in {CASES!r}:
  with contextlib.redirect_stderr(io.StringIO()) as error:
    code = main([*command, *wrong])
  print(json.dumps([code, error.getvalue(), [name for name in {SLOW} if name in sys.modules]]))'''
  outcomes = [json.loads(line) for line in run(code, workplace).splitlines()]
  for (command, wrong, message), outcome in zip(CASES, outcomes, strict=True):
    code, error, loaded = outcome
    assert (code, loaded) == (2, []) and message in error, (command[0], wrong, outcome)
    assert error.startswith('error: ') and error.count('\n') == 1
  assert not (workplace / 'o').exists()


def test_it_takes_two_seconds_at_most(workplace):
  def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
  before = cpu_seconds()
  run(f'from toolformer_jax.cli import main; assert main({EVALUATE} + ["--tasks", "no"]) == 2',
      workplace)
  assert cpu_seconds() - before < MOST_SECONDS
