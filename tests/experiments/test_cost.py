"""The dry run counts what is left: by the formulas of plans, each stage once, nothing twice."""

import dataclasses
import json
import pathlib

import pytest

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.annotation.prompts import prompt_for
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.checkpoints.pretrained import pretrained_config, pretrained_tokenizer
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.experiments.config import ExperimentConfig
from toolformer_jax.experiments.cost import Cost, CostCounter, UnknownCostError
from toolformer_jax.experiments.experiment import Experiment
from toolformer_jax.experiments.grid import Cell, Factors
from toolformer_jax.experiments.grid_plan import plan_grid
from toolformer_jax.experiments.stages import Annotate, Evaluate, Finetune
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.flops import forward_flops, training_flops
from toolformer_jax.planning.annotation import RESULT_TOKENS, plan_annotation
from toolformer_jax.runtime.chips import CHIPS
from toolformer_jax.training.config import FinetuneConfig

ANNOTATION = AnnotationConfig(max_call_tokens=6)
TOOL = ToolConfig(tau_s=0.0, k=3, m=4)
EXPERIMENT = Experiment(
    checkpoint='checkpoint', corpus='corpus.jsonl', tools=('calculator',), tasks=('svamp',),
    annotation=ANNOTATION, tool_configs={'calculator': TOOL},
    finetune=FinetuneConfig(steps=5, batch_rows=2, row_tokens=64))


def stages(kind, experiment=EXPERIMENT):
  return [stage for stage in experiment.stages() if isinstance(stage, kind)]


def changed(**fields):
  return dataclasses.replace(EXPERIMENT, **fields)


def cells(*experiments):
  return [Cell(Factors('', f'{i}.gin', 0), one) for i, one in enumerate(experiments)]


def total(plan):
  return sum((plan.costs[one] for one in plan.stages if one not in plan.done), Cost())


@pytest.mark.usefixtures('folder')
def test_an_annotation_costs_what_its_plan_says():
  plan = plan_annotation(
      read_corpus('corpus.jsonl'), decoder=pretrained_config('checkpoint'),
      tokenizer=pretrained_tokenizer('checkpoint'),
      tools={'Calculator': (TOOL, prompt_for('Calculator'))}, config=ANNOTATION,
      syntax=DEFAULT_SYNTAX, chip=CHIPS[0])
  stage, = stages(Annotate)
  cost = CostCounter().count(stage)
  assert cost == Cost(4, sum(one.tokens for one in plan.stages),
                      sum(one.flops for one in plan.stages))
  prefill, decode, execute, _ = plan.stages
  assert execute.flops == 0 and prefill.flops > 0
  assert decode.flops > decode.tokens * forward_flops(pretrained_config('checkpoint'), 1)


@pytest.mark.usefixtures('folder')
@pytest.mark.parametrize('adapter', [None, LoraConfig(rank=4)])
def test_training_costs_its_steps_of_full_rows(adapter):
  config = FinetuneConfig(steps=7, batch_size=3, row_tokens=32, adapter=adapter)
  stage, _ = stages(Finetune, changed(finetune=config))
  decoder = pretrained_config('checkpoint').replace(adapter=adapter)
  cost = CostCounter().count(stage)
  assert cost == Cost(0, 7 * 3 * 32, 7 * 3 * training_flops(decoder, 32))
  twice = dataclasses.replace(config, adversarial_epsilon=0.1)
  adversarial, _ = stages(Finetune, changed(finetune=twice))
  assert CostCounter().count(adversarial).flops == 2 * cost.flops
  by_epochs, _ = stages(Finetune, changed(finetune=dataclasses.replace(config, epochs=1.0)))
  with pytest.raises(UnknownCostError, match='epochs depend on the number of texts'):
    CostCounter().count(by_epochs)


@pytest.mark.usefixtures('folder')
def test_an_evaluation_costs_its_prompts_and_their_longest_answers():
  generation = GenerationConfig(max_calls=2, max_call_tokens=9)
  by_arm = {one.arm: CostCounter().count(one)
            for one in stages(Evaluate, changed(generation=generation))}
  decoder, tokenizer = pretrained_config('checkpoint'), pretrained_tokenizer('checkpoint')
  prompts = [len(tokenizer.encode(json.loads(line)['prompt'])) + (tokenizer.start_id is not None)
             for line in _questions()]
  for arm, written in (('base', 32), ('toolformer', 32 + 2 * (9 + RESULT_TOKENS))):
    assert by_arm[arm] == Cost(5, sum(prompts) + 5 * written, sum(
        forward_flops(decoder, prompt, logits=1) + forward_flops(decoder, written, prompt, written)
        for prompt in prompts))
  assert by_arm['base'] == by_arm['cc'] == by_arm['disabled']


def _questions():
  from toolformer_jax.evaluation.config import EvaluationConfig
  from toolformer_jax.evaluation.tasks import find_tasks, load_examples
  return [json.dumps({'prompt': one.prompt})
          for one in load_examples(find_tasks(['svamp'])[0], 'data', EvaluationConfig())]


def test_the_first_documents_stand_for_the_others(folder):
  line = json.dumps({'text': 'There are 2 and 9 ducks.'}) + '\n'
  for number in (250, 1000):
    (folder / f'{number}.jsonl').write_text(line * number)
  few, many = (CostCounter().count(stages(Annotate, changed(corpus=f'{number}.jsonl'))[0])
               for number in (250, 1000))
  assert many == few.times(4) and few.texts == 250


def test_a_corpus_is_counted_whole_or_not_at_all(run, folder, monkeypatch):
  monkeypatch.setattr('toolformer_jax.experiments.cost._MOST_DOCUMENTS', 300)
  line = json.dumps({'text': 'There are 2 and 9 ducks.'}) + '\n'
  for number in (300, 301):
    (folder / f'{number}.jsonl').write_text(line * number)
  grid = ('experiment', '--gin_file', 'base.gin', '--gin_file', 'small.gin', '--output_dir', 'runs',
          '--dry_run', '--corpus')
  assert '| annotate | 1 | 300 |' in run(*grid, '300.jsonl')[1]
  code, out, err = run(*grid, '301.jsonl')
  assert code == 0 and '| annotate | 1 | unknown |' in out, err
  assert '301.jsonl has more than 300 documents, which --dry_run does not count' in out


@pytest.mark.parametrize(('options', 'message'), [
    (('--limit', '-1'), '--limit must be at least 1, not -1'),
    (('--limit', '0'), '--limit must be at least 1, not 0'),
    (('--corpus', 'twice.jsonl'), "twice.jsonl: two documents have the id 'a'"),
    (('--data_dir', 'broken'), 'SVAMP.json')])
def test_a_mistake_of_the_user_is_an_error(run, folder, options, message):
  (folder / 'twice.jsonl').write_text(json.dumps({'text': 'Two ducks.', 'id': 'a'}) + '\n' +
                                      json.dumps({'text': 'Six ducks.', 'id': 'a'}) + '\n')
  (folder / 'broken' / 'svamp').mkdir(parents=True)
  (folder / 'broken' / 'svamp' / 'SVAMP.json').write_text('[{')
  code, out, err = run('experiment', '--gin_file', 'base.gin', '--gin_file', 'small.gin',
                       '--output_dir', 'runs', '--dry_run', *options)
  assert (code, out, len(err.splitlines())) == (2, '', 1) and message in err


def test_shared_stages_and_shared_parts_count_once(folder):
  own = {'calculator': dataclasses.replace(TOOL, tau_f=2.0)}
  in_place = dataclasses.replace(ANNOTATION, call_placement='in_place')
  other_seed = dataclasses.replace(EXPERIMENT.finetune, seed=1)
  early = dataclasses.replace(ANNOTATION, early_reject=True)
  one, seeds, threshold, place, rejecting = (
      plan_grid(cells(EXPERIMENT, *others), folder / 'runs') for others in (
          [], [changed(finetune=other_seed)], [changed(tool_configs=own)],
          [changed(annotation=in_place)], [changed(annotation=early)]))
  def by_kind(plan, kind):
    return [plan.costs[stage] for stage in plan.stages if isinstance(stage, kind)]
  assert len(by_kind(seeds, Annotate)) == 1 and len(by_kind(seeds, Finetune)) == 4
  assert total(seeds).flops == (total(one).flops + sum(
      cost.flops for cost in by_kind(one, Finetune))
      + sum(cost.flops for stage, cost in one.costs.items()
            if isinstance(stage, Evaluate) and stage.arm != 'base'))
  assert [bool(cost.flops) for cost in by_kind(threshold, Annotate)] == [True, False]
  whole, filter_alone = (cost.flops for cost in by_kind(place, Annotate))
  assert 0 < filter_alone < whole
  assert [cost.texts for cost in by_kind(place, Annotate)] == [4, 0]
  assert [cost.texts for cost in by_kind(rejecting, Annotate)] == [4, 4]  # other samples


def test_the_table_adds_up_and_what_is_done_is_free(run, folder):
  grid = ('experiment', '--gin_file', 'base.gin', '--gin_file', 'small.gin', '--arms',
          'base,toolformer', '--output_dir', 'runs')
  seeds = '--gin.GridConfig.seeds=(0, 1)'
  code, before, err = run(*grid, seeds, '--dry_run')
  assert code == 0, err
  def rows(text, first):
    lines = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if cells and cells[0] in first}
  kinds = rows(before, ('annotate', 'finetune', 'evaluate', 'all'))
  assert [kinds[kind][0] for kind in kinds] == ['1', '2', '3', '6'] and 'hours' not in before
  tokens = {kind: int(row[2].replace(',', '')) for kind, row in kinds.items()}
  assert tokens.pop('all') == sum(tokens.values()) and tokens['finetune'] == 2 * 2 * 1 * 64
  flops = [float(row[-1]) for row in rows(before, ('0', '1')).values()]
  assert sum(flops) == pytest.approx(float(kinds['all'][-1]), rel=0.01) and min(flops) > 0
  assert not pathlib.Path('runs').exists()

  assert run(*grid)[0] == 0  # the first seed
  code, half, err = run(*grid, seeds, '--dry_run')
  left = rows(half, ('annotate', 'finetune', 'evaluate', 'all'))
  assert left['annotate'][:4] == ['0', '0', '0', '0']
  assert left['finetune'][0] == '1' and 'Hours are an estimate' in half
  assert rows(half, ('0',))['0'][-1] == '0' and rows(half, ('1',))['1'][-1] == f'{flops[1]:.2e}'
  assert run(*grid, seeds)[0] == 0
  done = rows(run(*grid, seeds, '--dry_run')[1], ('all',))['all']
  assert done == ['0', '0', '0', '0', '0.00']


def test_hours_are_those_of_stages_that_ran_in_one_go(folder):
  second = changed(finetune=dataclasses.replace(EXPERIMENT.finetune, steps=20))
  arms = {'toolformer': ''}
  first, second = (dataclasses.replace(one, arms=arms) for one in (EXPERIMENT, second))
  root = folder / 'runs'
  done, = stages(Finetune, first)
  for record, known in (({'seconds': 3600.0}, True),
                        ({'seconds': 3600.0, 'continued': True}, False)):
    path = root / 'stages' / done.key / 'stage.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    plan = plan_grid(cells(first, second), root)
    left, = stages(Finetune, second)
    assert plan.hours.get(left) == (pytest.approx(4.0) if known else None)  # 20 steps after 5


def test_what_is_not_on_this_machine_is_unknown_and_not_downloaded(run, folder, monkeypatch):
  def refuse(*_, **__):
    raise AssertionError('a dry run downloads nothing')
  monkeypatch.setattr('urllib.request.urlopen', refuse)
  monkeypatch.setattr('toolformer_jax.data.catalogue._obtain', refuse)
  grid = ('experiment', '--gin_file', 'base.gin', '--output_dir', 'runs', '--dry_run')
  for name, reason in (('smollm2-135m', '`toolformer fetch smollm2-135m` brings it'),
                       ('hf://nobody/nothing', 'hf://nobody/nothing is not on this machine')):
    code, out, err = run(*grid, '--checkpoint', name)
    assert code == 0, err
    assert '| all | 7 | unknown | unknown | unknown |' in out and reason in out
  code, out, err = run(*grid, '--checkpoint', 'checkpoint', '--corpus', 'word-problems')
  assert code == 0, err
  assert '| annotate | 1 | unknown |' in out and 'and 1 unknown |' in out
  assert '`toolformer fetch word-problems` brings it' in out
  assert run(*grid, '--checkpoint', 'checkpoint', '--corpus', 'hf:org/name')[1].count('hosted') == 1


def test_no_weights_are_read(run, folder):
  for file in (folder / 'checkpoint' / 'variables').rglob('*'):
    if file.is_file():
      file.write_bytes(b'no weights')
  code, out, err = run('experiment', '--gin_file', 'base.gin', '--gin_file', 'small.gin',
                       '--output_dir', 'runs', '--dry_run')
  assert code == 0 and 'unknown' not in out, err


@pytest.mark.usefixtures('folder')
def test_models_that_are_there_cost_an_evaluation_alone():
  arms = {'base': '', 'toolformer': 'checkpoint'}
  plan = plan_grid(cells(changed(arms=arms, config=ExperimentConfig(rounds=0))),
                   pathlib.Path('runs'))
  assert [stage.kind for stage in plan.stages] == ['evaluate', 'evaluate']
  assert all(plan.costs[stage].flops for stage in plan.stages)
