"""Grids of adapters: tasks are learned beside calls, and the report tells what each kind took."""

import json
import pathlib

import jax
import pytest

from toolformer_jax.checkpoints.pretrained import pretrained_config
from toolformer_jax.models.adapter_config import Ia3Config
from toolformer_jax.models.flops import num_adapter_parameters, num_parameters

REPOSITORY = pathlib.Path(__file__).parents[2]
EXPERIMENT = ('experiment', '--gin_file', 'base.gin', '--gin_file', 'small.gin', '--arms',
              'toolformer', '--output_dir', 'runs')
TRAIN_TASKS = "--gin.ExperimentConfig.train_tasks=('sib200',)"
TOPICS = ('travel', 'sports')
GRID = "--gin.GridConfig.ablations=('ia3.gin',)"


@pytest.fixture(autouse=True)
def files(folder):
  for name, code in (('en', 'eng_Latn'), ('zh', 'zho_Hans')):
    (folder / 'data/sib200' / code).mkdir(parents=True)
    for split, count in (('train', 8), ('test', 4)):
      rows = [f'{n}\t{TOPICS[n % 2]}\t{name} {split} text {n}' for n in range(count)]
      (folder / 'data/sib200' / code / f'{split}.tsv').write_text(
          '\n'.join(['index_id\tcategory\ttext', *rows]))
  (folder / 'ia3.gin').write_text('FinetuneConfig.adapter = @Ia3Config()\n')


def table(report, title):
  """Returns the rows of a section of the report by their ablation."""
  lines = report.partition(f'## {title}\n')[2].partition('\n## ')[0].splitlines()
  rows = [line.strip('| ').split(' | ') for line in lines if line.startswith('| model')]
  return {row[1]: row[2:] for row in rows}


def test_tasks_are_learned_beside_calls_and_the_report_tells_what_it_took(run, folder):
  code, out, err = run(*EXPERIMENT, GRID, TRAIN_TASKS, '--tasks', 'svamp,sib200',
                       '--gin.MixtureConfig.dev_texts=0')
  assert code == 0, err
  records = {path.parent.name: json.loads(path.read_text())
             for path in folder.glob('runs/stages/finetune-*/stage.json')}
  assert len(records) == 2 and all(one['texts'] == 4 + 16 for one in records.values())
  shape = pretrained_config('checkpoint')
  trained = {'base': num_parameters(shape),
             'ia3': num_adapter_parameters(shape.replace(adapter=Ia3Config()))}
  took = table('#' + (folder / 'runs/training.md').read_text(), 'Training')
  assert {name: int(row[1].replace(',', '')) for name, row in took.items()} == trained
  assert sorted(one['trained'] for one in records.values()) == sorted(trained.values())
  # The optimizer has two moments of four bytes for each weight that is trained; devices share them.
  memory = {one['trained']: one['step_bytes'] for one in records.values()}
  assert memory[trained['base']] > memory[trained['ia3']] + 8 * trained['base'] / len(jax.devices())
  for one in records.values():
    assert 0 < one['train_seconds'] <= one['seconds'] + 0.1
  parts = table(out, 'Parts of SIB-200')
  assert parts.keys() == trained.keys() and 'SIB-200 en | SIB-200 zh' in out
  predictions = [json.loads(line) for path in folder.glob('runs/stages/evaluate-*/predictions/sib*')
                 for line in path.read_text().splitlines()]
  assert len(predictions) == 2 * 8 and {one['group'] for one in predictions} == {'en', 'zh'}
  means = [float(row[i].partition(' ')[0]) for row in parts.values() for i in (1, 2)]
  correct = [one['correct'] for one in predictions]
  assert sum(means) / len(means) == pytest.approx(100 * sum(correct) / len(correct), abs=0.1)


def test_the_same_texts_are_a_task_alone_or_by_command(run, folder):
  settings = ('--gin.FinetuneConfig.batch_rows=1', '--gin.FinetuneConfig.row_tokens=64',
              '--gin.FinetuneConfig.steps=2', '--gin.FinetuneConfig.learning_rate=0.01')
  code, _, err = run(*EXPERIMENT, TRAIN_TASKS, '--tasks', 'sib200', '--gin.CORPUS=""')
  assert code == 0, err
  code, _, err = run('finetune', '--task', 'sib200', '--data_dir', 'data', '--checkpoint',
                     'checkpoint', '--output_dir', 'tuned', *settings)
  assert code == 0, err
  [stage] = folder.glob('runs/stages/finetune-*')
  losses = [[json.loads(line)['loss'] for line in (path / 'metrics.jsonl').read_text().splitlines()]
            for path in (stage, pathlib.Path('tuned'))]
  assert losses[0] == losses[1] and len(losses[0]) == 2


@pytest.mark.parametrize(('tasks', 'options', 'message'), [
    ("('sib2000',)", [], "unknown task 'sib2000'"),
    ("('sib200', 'SIB200')", [], 'ExperimentConfig.train_tasks: sib200 occurs twice'),
    ("('svamp',)", [], 'ExperimentConfig.train_tasks svamp: only tasks of classification and'),
    ("('banking77',)", [], 'ExperimentConfig.train_tasks: data has no banking77; fetch train.csv'),
    ("('banking77',)", ['--data_dir', 'tfds:'], 'ExperimentConfig.train_tasks banking77: with '
     '--data_dir tfds: only sst2, ag_news_subset, xsum can be trained on')])
def test_what_cannot_be_learned_is_refused_at_once(run, tasks, options, message):
  code, _, err = run(*EXPERIMENT, f'--gin.ExperimentConfig.train_tasks={tasks}', '--dry_run',
                     *options)
  assert code == 2 and message in err and err.count('\n') == 1
  assert not pathlib.Path('runs').exists()


def test_a_dry_run_of_the_shipped_grid_prints_its_cost(
    run, folder, data_dir, smollm2_path, monkeypatch):
  (folder / 'calls.jsonl').write_text(json.dumps({'text': 'One and one are two.'}) + '\n')
  monkeypatch.setenv('TOOLFORMER_CACHE', str(smollm2_path.parent))
  monkeypatch.chdir(REPOSITORY)  # gin takes its folder experiments/ for a package elsewhere
  code, out, err = run(
      'experiment', '--gin_file', 'experiments/grids/adapters.gin', '--data',
      folder / 'calls.jsonl', '--data_dir', data_dir, '--output_dir', folder / 'runs',
      '--limit', '20', '--dry_run')
  assert code == 0, err
  # Seven kinds and three seeds; the model that has learned nothing is asked once.
  assert '43 different stages: 22 evaluate, 21 finetune.' in out
  row = next(line for line in out.splitlines() if line.startswith('| finetune'))
  assert row.split(' | ')[3] == f'{21 * 60 * 4 * 256:,}' and 'unknown' not in out
  for name in ('base', 'lora', 'adalora', 'ia3', 'houlsby', 'pfeiffer', 'prefix'):
    assert f'smollm2_135m/{name}/seed2' in out or f'model/{name}/seed2' in out
