"""What tests of experiments share: a folder with all that a tiny experiment needs."""

import json

import pytest

from toolformer_jax import cli
from toolformer_jax.checkpoints.orbax import save_model

PROBLEMS = [{'ID': f'c{i}', 'Body': f'Xi has {i}.', 'Question': 'How many?', 'Answer': float(i)}
            for i in range(5)]
# A random model writes no expression, so that a tool that accepts anything takes the place of the
# calculator, and every call is kept.
SETTINGS = '''
CustomToolsConfig.functions = {'Calculator': 'echo_tool:echo'}
CORPUS = 'corpus.jsonl'
TOOLS = ['calculator']
TASKS = ['svamp']
DATA_DIR = 'data'
calculator/ToolConfig.tau_s = 0.0
calculator/ToolConfig.tau_f = -10.0
calculator/ToolConfig.k = 3
calculator/ToolConfig.m = 4
AnnotationConfig.temperature = 3.0
AnnotationConfig.max_call_tokens = 6
AnnotationConfig.force_name = True
AnnotationConfig.preselect = False
FinetuneConfig.steps = 2
FinetuneConfig.batch_rows = 1
FinetuneConfig.row_tokens = 64
FinetuneConfig.learning_rate = 0.01
EvaluationConfig.number_tokens = 4
EvaluationConfig.bootstrap_samples = 50
ExperimentConfig.title = 'A test'
'''


@pytest.fixture
def folder(tmp_path, monkeypatch, make_eager_model):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  save_model(tmp_path / 'checkpoint', make_eager_model(max_positions=2048))
  texts = [f'There are {i} and {i + 7} ducks. In all {2 * i + 7}.' for i in range(4)]
  files = {
      'corpus.jsonl': ''.join(json.dumps({'text': text}) + '\n' for text in texts),
      'echo_tool.py': 'def echo(argument):\n  return f"<{argument[:4]}>"\n',
      'data/svamp/SVAMP.json': json.dumps(PROBLEMS),
      'base.gin': SETTINGS,
      'small.gin': "CHECKPOINT = 'checkpoint'\n",
      'short.gin': 'FinetuneConfig.steps = 1\n',
      'no_call.gin': 'GenerationConfig.top_k_api = 1\n'}
  for name, text in files.items():
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return tmp_path


@pytest.fixture
def run(folder, capsys):
  def run(*argv):
    code = cli.main([str(one) for one in argv])
    return code, *capsys.readouterr()
  return run
