"""The estimate of an annotation has the counts of the run, or bounds of them."""

import pytest

from toolformer_jax import api, cli
from toolformer_jax.annotation import filter as filtering
from toolformer_jax.annotation import sample as sampling
from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.annotation.prompts import Prompt
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import Document
from toolformer_jax.inference import branch_sampling
from toolformer_jax.models.flops import forward_flops
from toolformer_jax.planning.annotation import annotation_table, plan_annotation
from toolformer_jax.runtime.chips import CHIPS

PROMPT = Prompt('Calculator', 'Add calls:', ('One and one is [Calculator(1 + 1)] 2.',))
DOCUMENTS = [
  *(Document(f'd{i}', f'There are {i} and {i + 7}. In all there are {2 * i + 7}.')
    for i in range(6)),
  Document('none', 'No number is here, so that this text is not selected.'),
  Document('long', 'A total of 5. ' * 30),
  Document('short', '= 5')]
TOOL = ToolConfig(tau_s=0.0, k=4, m=3)
CONFIG = AnnotationConfig(max_text_tokens=96, max_call_tokens=10, force_name=True, temperature=3.0)
V5E = next(chip for chip in CHIPS if chip.name == 'v5e')


class Echo:
  """Gives the argument back."""

  name, version = 'Calculator', 'echo'

  def __call__(self, argument, context):
    return f'<{argument[:5]}>'


@pytest.fixture(scope='module')
def model(make_eager_model):
  return make_eager_model(max_positions=1024)


@pytest.fixture
def counted(monkeypatch):
  """What a run really reads and writes, by name."""
  seen = {'prefill': 0, 'samples': 0, 'filter': 0}
  prefill, sample, score = (
      sampling.prefill_documents, branch_sampling.sample_branches, filtering.score)

  def prefill_documents(model, prompt, documents, *args):
    seen['prefill'] += sum(map(len, documents))
    return prefill(model, prompt, documents, *args)

  def sample_branches(model, prefilled, branches, *args, **settings):
    seen['samples'] += len(branches)
    return sample(model, prefilled, branches, *args, **settings)

  def count_scored(model, requests, **settings):
    start = model.tokenizer.start_id is not None
    ends = {}
    for one in requests:
      key = one.prefix_ids, one.token_ids
      ends[key] = max(ends.get(key, 0), *one.target_positions)
    seen['filter'] += sum(start + len(prefix) + end for (prefix, _), end in ends.items())
    return score(model, requests, **settings)
  monkeypatch.setattr(sampling, 'prefill_documents', prefill_documents)
  monkeypatch.setattr(branch_sampling, 'sample_branches', sample_branches)
  monkeypatch.setattr(filtering, 'score', count_scored)
  return seen


def planned(model, documents=DOCUMENTS, config=CONFIG, tool=TOOL):
  return plan_annotation(
      documents, decoder=model.config, tokenizer=model.tokenizer,
      tools={'Calculator': (tool, PROMPT)}, config=config, syntax=DEFAULT_SYNTAX, chip=V5E)


def test_the_counts_are_those_of_a_run(model, counted, tmp_path):
  plan = planned(model)
  result = api.annotate(model, DOCUMENTS, tools=Echo(), tool_configs={'Calculator': TOOL},
                        prompts={'Calculator': PROMPT}, config=CONFIG, output_dir=tmp_path)
  prefill, decode, execute, filtered = plan.stages
  prompt = len(model.tokenizer.encode(PROMPT.text_before_input(DEFAULT_SYNTAX)))
  start = model.tokenizer.start_id is not None
  assert prefill.tokens == counted['prefill'] + prompt + start  # equal
  assert decode.calls == execute.calls == counted['samples']  # equal, as tau_s is 0
  assert decode.tokens == decode.calls * (
      len(model.tokenizer.encode(' [Calculator')) + CONFIG.max_call_tokens)
  calls = list(result.run.calls('Calculator', 'filter'))
  assert 0 < len(calls) <= filtered.calls
  assert 0 < counted['filter'] <= filtered.tokens  # a bound, by the calls that are written
  assert counted['filter'] > 0.03 * filtered.tokens
  assert plan.documents == len(DOCUMENTS)
  assert plan.texts == result.run.counts('documents')['documents'] > len(DOCUMENTS)
  assert prefill.texts < plan.texts  # what preselection leaves


def test_times_follow_the_roofline(model):
  plan = planned(model)
  assert plan.chip_s == pytest.approx(sum(stage.chip_s for stage in plan.stages))
  prefill = plan.stages[0]
  flops = prefill.tokens * forward_flops(model.config, 1)
  assert prefill.chip_s >= flops / V5E.flops_per_s
  twice = planned(model, [*DOCUMENTS, *(Document(f'{one.id}b', one.text) for one in DOCUMENTS)],
                  CONFIG)
  once = planned(model).stages[1]
  assert twice.stages[1].tokens == 2 * once.tokens
  assert twice.stages[1].chip_s == pytest.approx(2 * once.chip_s)


def test_a_price_becomes_dollars_for_a_million_documents(model):
  plan = planned(model)
  line = annotation_table(plan, 3600.0).splitlines()[-3]
  assert line.split()[-1] == f'{plan.chip_s * 1e6 / len(DOCUMENTS):,.0f}'
  assert 'dollars' not in annotation_table(plan, None)


def test_no_text_is_no_cost(model):
  plan = planned(model, [Document('a', 'No number.')])
  assert plan.chip_s == 0 and not any(stage.tokens for stage in plan.stages)


def test_the_command_writes_nothing_and_needs_no_folder(model, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  model.tokenizer.save(tmp_path)
  (tmp_path / 'c.jsonl').write_text('{"text": "There are 4 and 5, so 9."}\n')
  from toolformer_jax.checkpoints.orbax import save_model
  save_model(tmp_path / 'model', model)
  for file in (tmp_path / 'model' / 'variables').rglob('*'):
    if file.is_file():
      file.write_bytes(b'no weights')
  before = sorted(tmp_path.rglob('*'))
  code = cli.main(['annotate', '--dry_run', '--corpus', 'c.jsonl', '--checkpoint', 'model',
                   '--tools', 'calculator,wikisearch', '--price_per_chip_hour', '1.2'])
  printed = capsys.readouterr()
  assert code == 0, printed.err
  assert '1 documents, 1 texts; v5e' in printed.out and 'dollars' in printed.out
  assert sorted(tmp_path.rglob('*')) == before
  assert cli.main(['annotate', '--chip', 'v5e', '--corpus', 'c.jsonl', '--checkpoint', 'model',
                   '--tools', 'calculator', '--output_dir', 'o']) == 2
  assert '--chip works only with --dry_run' in capsys.readouterr().err
