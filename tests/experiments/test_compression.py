"""Models that a grid makes smaller: as by hand, with recovery, and what is refused."""

import json
import pathlib

import pytest

EXPERIMENT = ('experiment', '--gin_file', 'base.gin', '--gin_file', 'small.gin',
              '--output_dir', 'runs')
FILES = {
    'int8.gin': "CompressionConfig.bits = 'int8'\nCompressionConfig.rounding = 'nearest'\n",
    'fewer.gin': 'CompressionConfig.keep_layers = (0,)\n',
    'sparse.gin': '''
CompressionConfig.sparsity = 0.5
CompressionConfig.weight_scores = 'magnitude'
''',
    'recovered.gin': '''
include 'fewer.gin'
CompressionConfig.bits = 'int8'
CompressionConfig.rounding = 'nearest'
ExperimentConfig.calibration = 'plain.jsonl'
ExperimentConfig.recovery = @recovery/FinetuneConfig()
recovery/FinetuneConfig.steps = 1
recovery/FinetuneConfig.distillation = @DistillationConfig()
DistillationConfig.weight = 0.25
'''}

DROP_REPEATED = "--gin.CorpusConfig.repeated_ids='drop'"


@pytest.fixture(autouse=True)
def files(folder):
  for name, text in FILES.items():
    (folder / name).write_text(text)
  plain = json.dumps({'id': 'a', 'text': 'A plain text of some words.'}) + '\n'
  (folder / 'plain.jsonl').write_text(2 * plain)


def grid(*names):
  return f'--gin.GridConfig.ablations={names}'


def stages(folder):
  """Returns the kinds of the stages that were run."""
  return sorted(path.name.split('-')[0] for path in folder.glob('runs/stages/*'))


def test_a_grid_compresses_what_it_trained(run, folder):
  code, out, err = run(*EXPERIMENT, grid('int8.gin', 'fewer.gin', 'sparse.gin'),
                       '--arms', 'disabled,toolformer')
  assert code == 0, err
  # Both arms are one model, which is trained once, and compressed once in each way.
  assert stages(folder) == ['annotate', *['compress'] * 3, *['evaluate'] * 8, 'finetune']
  sizes = {row.split(' | ')[1]: row.strip('| ').split(' | ')[3:]
           for row in out.partition('## Sizes')[2].splitlines() if row.startswith('| model')}
  base, int8, fewer, sparse = ([int(one.replace(',', '')) for one in sizes[name]]
                               for name in ('base', 'int8', 'fewer', 'sparse'))
  files = {path.stat().st_size
           for path in folder.glob('runs/stages/compress-*/model/*.safetensors')}
  assert {int8[2], fewer[2], sparse[2]} == files
  assert base[0] > fewer[0] and int8[0] == sparse[0] > sparse[1] and base[2] > int8[2]
  assert "## Toolformer's answers by outcome" in out
  assert (folder / 'runs/figures/compression.png').stat().st_size > 1000
  [tuned] = folder.glob('runs/stages/finetune-*')
  code, _, err = run('compress', '--checkpoint', tuned, '--output_dir', 'small',
                     '--gin_file', 'fewer.gin')
  assert code == 0, err
  by_hand = (folder / 'small/model.safetensors').read_bytes()
  assert by_hand in [path.read_bytes() for path in
                     folder.glob('runs/stages/compress-*/model/model.safetensors')]


def test_a_compression_that_was_interrupted_is_done_again(run, folder):
  code, out, err = run(*EXPERIMENT, '--gin_file', 'fewer.gin', '--arms', 'base')
  assert code == 0, err
  [small] = folder.glob('runs/stages/compress-*')
  weights = (small / 'model/model.safetensors').read_bytes()
  (small / 'stage.json').unlink()
  (small / 'model/model.safetensors').write_bytes(weights[:100])
  assert run(*EXPERIMENT, '--gin_file', 'fewer.gin', '--arms', 'base')[:2] == (0, out)
  assert (small / 'model/model.safetensors').read_bytes() == weights


def test_recovery_trains_what_is_left_and_rounds_it_last(run, folder):
  arguments = *EXPERIMENT, grid('recovered.gin'), '--arms', 'base,toolformer', DROP_REPEATED
  code, out, err = run(*arguments)
  assert code == 0, err
  # Of each arm: fewer layers, recovery with the model before as the teacher, then int8.
  assert stages(folder) == ['annotate', *['compress'] * 4, *['evaluate'] * 4, *['finetune'] * 3]
  runs = [json.loads(path.read_text()) for path in folder.glob('runs/stages/finetune-*/run.json')]
  assert sum('teacher' in one['configuration'] for one in runs) == 2
  small = [path for path in folder.glob('runs/stages/compress-*/model')
           if 'quantization_config' in (path / 'config.json').read_text()]
  assert len(small) == 2
  assert all(json.loads((path / 'config.json').read_text())['num_hidden_layers'] == 1
             for path in small)
  (folder / 'plain.jsonl').unlink()  # what is done needs its texts no more
  dry = run(*arguments, '--dry_run')[1]
  assert '| compress | 0 | 0 | 0 | 0 |' in dry
  assert run(*arguments)[:2] == (0, out)


RECOVERY = ('--gin.ExperimentConfig.recovery=@recovery/FinetuneConfig()',
            "--gin.ExperimentConfig.calibration='plain.jsonl'")


LATE = {
    'sparsity.gin': ('CompressionConfig.sparsity = 2.0', 'CompressionConfig.sparsity must be betw'),
    'layers.gin': ("CompressionConfig.layers = 9\nExperimentConfig.calibration = 'plain.jsonl'",
                   'CompressionConfig.layers is 9; keep at most the 2 layers'),
    'calibration.gin': ("CompressionConfig.layers = 1\nExperimentConfig.calibration = 'no.jsonl'",
                        'there is no file no.jsonl'),
    'run.gin': ("include 'recovered.gin'\nDATA = ['unfinished']",
                'unfinished is not the output folder of a finished annotation run'),
    'ensemble.gin': ('EvaluationConfig.ensemble_adapters = True',
                     'ensemble_adapters needs a model that has adapters by name'),
    'tokens.gin': ('GenerationConfig.max_tokens = 7',
                   'GenerationConfig.max_tokens has no effect on an evaluation; use Evaluation'),
    'range.gin': ('GenerationConfig.max_tokens = 0', 'GenerationConfig.max_tokens must be between'),
    'room.gin': ('EvaluationConfig.number_tokens = 2047', 'tokens leave no room for a prompt in 2'),
    'dtype.gin': ("ModelConfig.dtype = 'int4'", 'a model in int4 cannot be trained: its weights'),
    'rows.gin': ("include 'recovered.gin'\nrecovery/FinetuneConfig.row_tokens = 4096",
                 'FinetuneConfig.row_tokens is 4096, but the model has only 2048 positions'),
    'qat.gin': ("include 'recovered.gin'\nrecovery/FinetuneConfig.qat = @QatConfig()\n"
                "QatConfig.bits = 'mixed'", "'int8' or 'int4', not 'mixed': which layers have 4"),
    'mixed.gin': ("include 'recovered.gin'\nrecovery/FinetuneConfig.qat = @QatConfig()\n"
                  "CompressionConfig.bits = 'mixed'\nCompressionConfig.weight_bytes = 1000000",
                  "qat cannot train for CompressionConfig.bits 'mixed'"),
    'prefix.gin': ("include 'fewer.gin'\nFinetuneConfig.adapter = @PrefixConfig()",
                   'a prefix adapter cannot be merged into the weights'),
    'adapter.gin': ("include 'int8.gin'\nFinetuneConfig.adapter = @LoraConfig()\n"
                    "ExperimentConfig.calibration = 'plain.jsonl'\n"
                    'ExperimentConfig.recovery = @recovery/FinetuneConfig()\n'
                    'recovery/FinetuneConfig.adapter = None', 'the model has the adapter Lora')}


@pytest.mark.parametrize('dry', [['--dry_run'], []], ids=['dry run', 'run'])
@pytest.mark.parametrize('name', LATE)
def test_values_that_would_fail_late_are_refused_with_their_file(run, folder, name, dry):
  text, message = LATE[name]
  (folder / name).write_text(text + '\n')
  (folder / 'unfinished' / 'documents').mkdir(parents=True)
  code, out, err = run(*EXPERIMENT, grid('short.gin', name), '--arms', 'toolformer', *dry)
  assert (code, out) == (2, '') and err.startswith(f'error: {name}: ') and message in err
  assert err.count('\n') == 1 and not (folder / 'runs').exists()


@pytest.mark.parametrize('settings, message', [
    (['--gin.CompressionConfig.layers=1'], 'bind ExperimentConfig.calibration'),
    ([*RECOVERY], 'CompressionConfig removes nothing'),
    ([*RECOVERY, '--gin_file', 'sparse.gin'], 'would fill the zeros'),
    ([*RECOVERY, '--gin_file', 'fewer.gin', '--gin.recovery/FinetuneConfig.keep_zeros=True'],
     'keep_zeros has no effect'),
    ([*RECOVERY, '--gin_file', 'int8.gin', '--gin.recovery/FinetuneConfig.qat=@QatConfig()'],
     'must be the same'),
    ([*RECOVERY, '--gin_file', 'fewer.gin', '--arms', 'toolformer=checkpoint'], 'give DATA'),
    ([RECOVERY[1], '--gin.CompressionConfig.layers=9'], 'seed0: CompressionConfig.layers is 9'),
    ([RECOVERY[0].replace('@recovery', '@recover'), RECOVERY[1]], 'write @recovery/Finetune'),
    (['--gin.FinetuneConfig.distillation=@DistillationConfig()'], 'only in its recovery'),
    (['--gin.DistillationConfig.weight=1.0'], 'or recovery/FinetuneConfig.distillation in an'),
    (['--gin.recovery/FinetuneConfig.steps=3'], 'has no effect without ExperimentConfig.recovery')])
def test_what_has_no_effect_is_refused(run, settings, message):
  code, _, err = run(*EXPERIMENT, *settings)
  assert code == 2 and message in err and err.count('\n') == 1
  assert not pathlib.Path('runs').exists()
