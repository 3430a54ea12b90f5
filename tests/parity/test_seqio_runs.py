"""Texts of annotation runs as tasks of seqio: what is read, mixed, sharded, cached and packed."""

import itertools
from collections import Counter

import numpy as np
import pytest

pytest.importorskip('seqio')

import seqio  # noqa: E402

from toolformer_jax.annotation.run_dir import RunFolder  # noqa: E402
from toolformer_jax.annotation.stage_keys import MERGED  # noqa: E402
from toolformer_jax.calls import DEFAULT_SYNTAX  # noqa: E402
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall  # noqa: E402
from toolformer_jax.data.seqio_vocabulary import SHIFT  # noqa: E402
from toolformer_jax.errors import UserError  # noqa: E402
from toolformer_jax.training.config import MixtureConfig  # noqa: E402
from toolformer_jax.training.examples import make_examples  # noqa: E402
from toolformer_jax.training.mixture import build_epoch  # noqa: E402
from toolformer_jax.training.packing import segments_of  # noqa: E402
from toolformer_jax.training.seqio_features import (  # noqa: E402
  PackedFeatureConverter,
  packed_rows,
)
from toolformer_jax.training.seqio_tasks import register_runs  # noqa: E402

from .seqio_cache import cache  # noqa: E402

MIXTURE = MixtureConfig(cap=40, rates={'QA': 3.0})


def _record(i, tools):
  # `!` is token 0.
  document = Document(f'd{i}', f'Text {i}!{"!" * (i % 7)}')
  return AnnotatedDocument(document, tuple(
      ScoredCall(document.id, tool, f'{i}!', 1 + n, 0.5, str(i)) for n, tool in enumerate(tools)))


RECORDS = [_record(i, [('Calculator',), ('QA',), ('Calculator', 'QA')][i % 10 // 8 + (i % 10 == 9)])
           for i in range(100)]


@pytest.fixture(scope='module')
def run(tmp_path_factory, tokenizer):
  """An annotation run with 80 texts of Calculator, 10 of QA and 10 of both, in seven files."""
  path = tmp_path_factory.mktemp('run')
  configuration = {'tools': {'Calculator': {}, 'QA': {}}}
  with RunFolder(path, configuration, {}) as folder:
    for chunk in range(7):
      folder.write(MERGED, chunk, RECORDS[chunk * 15:chunk * 15 + 15], Counter())
    folder.complete(MERGED)
  tokenizer.save(path)
  return path


@pytest.fixture(scope='module')
def tasks(run, tokenizer):
  return register_runs('calls', [run], tokenizer, mixture=MIXTURE)


def _ids(dataset):
  return [tuple((row['targets'] - SHIFT).tolist()) for row in dataset.as_numpy_iterator()]


def _expected(records, tokenizer, **options):
  return [tuple(example.token_ids)
          for example in make_examples(records, tokenizer, DEFAULT_SYNTAX, **options)]


def _dataset(name, **options):
  options = {'sequence_length': None, 'split': 'train', 'shuffle': False} | options
  return seqio.get_mixture_or_task(name).get_dataset(**options)


def test_the_tasks_have_the_texts_of_an_epoch(tasks, tokenizer):
  assert tasks == ['calls_calculator', 'calls_qa']
  once = build_epoch(RECORDS, MixtureConfig(cap=40))
  assert Counter(_ids(_dataset(tasks[0])) + _ids(_dataset(tasks[1]))) == Counter(
      _expected(once, tokenizer))
  assert len(_ids(_dataset(tasks[0]))) == 40
  assert any(0 in ids for ids in _ids(_dataset(tasks[1])))


def test_rates_come_out_within_a_percent(tasks, tokenizer):
  qa, number = Counter(_ids(_dataset('calls_qa'))), 20_000
  drawn = _ids(_dataset('calls', seed=0, num_epochs=None).take(number))
  epoch = build_epoch(RECORDS, MIXTURE)
  expected = sum(ids in qa for ids in _expected(epoch, tokenizer)) / len(epoch)
  assert expected == 60 / 100
  assert abs(sum(ids in qa for ids in drawn) / number - expected) < 0.01


@pytest.mark.parametrize('shuffle', [False, True])
@pytest.mark.parametrize('hosts', [2, 3, 11])
def test_shards_of_hosts_are_disjoint_and_complete(tasks, shuffle, hosts):
  shards = [_ids(_dataset('calls_calculator', shuffle=shuffle, seed=3,
                          shard_info=seqio.ShardInfo(host, hosts))) for host in range(hosts)]
  assert Counter(itertools.chain(*shards)) == Counter(_ids(_dataset('calls_calculator')))
  assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_a_seed_has_one_order(tasks):
  first, again, other = (_ids(_dataset('calls', shuffle=True, seed=seed, num_epochs=1))
                         for seed in (1, 1, 2))
  assert first == again != other


def test_results_are_masked_and_calls_left_out(run, tokenizer):
  register_runs('masked', [run], tokenizer, mask_results=True)
  register_runs('plain', [run], tokenizer, without_calls=True)
  rows = _dataset('masked_qa').as_numpy_iterator()
  found = Counter((*(row['targets'] - SHIFT), *(row['loss_weights'] - SHIFT)) for row in rows)
  qa = [record for record in RECORDS if record.calls[-1].tool == 'QA']
  examples = make_examples(qa, tokenizer, DEFAULT_SYNTAX, mask_results=True)
  assert found == Counter((*example.token_ids, *example.loss_weights) for example in examples)
  assert Counter(_ids(_dataset('plain_qa'))) == Counter(
      _expected(qa, tokenizer, without_calls=True))


def test_cached_equals_uncached(tasks, tmp_path):
  uncached = _ids(_dataset('calls_qa'))
  cache(seqio.TaskRegistry.get('calls_qa'), tmp_path, 'train')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry.get('calls_qa'), '_cache_dir', None)
    seqio.add_global_cache_dirs([str(tmp_path)])
    cached = _dataset('calls_qa', use_cached=True)
    assert _ids(cached) == uncached and len(uncached) == 20


@pytest.mark.parametrize('row_tokens', [64, 16])
def test_rows_are_packed_for_the_trainer(tasks, tokenizer, row_tokens):
  converter = PackedFeatureConverter(tokenizer)
  dataset = converter(_dataset('calls_qa'), {'targets': row_tokens})
  rows = packed_rows(next(dataset.batch(1000).as_numpy_iterator()))
  found = Counter()
  for r in range(len(rows)):
    for segment in range(1, rows.segment_ids_RT[r].max() + 1):
      at = rows.segment_ids_RT[r] == segment
      assert rows.positions_RT[r, at].tolist() == [*range(at.sum())]
      found[tuple(map(tuple, (rows.input_tokens_RT[r, at].tolist(),
                              rows.target_tokens_RT[r, at].tolist(),
                              rows.loss_weights_RT[r, at].tolist())))] += 1
    assert not rows.loss_weights_RT[r, rows.segment_ids_RT[r] == 0].any()
  qa = [record for record in RECORDS if record.calls[-1].tool == 'QA']
  examples = make_examples(qa, tokenizer, DEFAULT_SYNTAX)
  assert found == Counter(
      (tuple(segment.inputs), tuple(segment.targets), tuple(segment.loss_weights))
      for segment in segments_of(examples, tokenizer, row_tokens, True))
  assert (rows.target_tokens_RT[rows.loss_weights_RT > 0] == 0).any()  # token 0 survives
  assert np.issubdtype(rows.loss_weights_RT.dtype, np.float32)


def test_a_run_that_is_not_finished_is_refused(tmp_path, tokenizer):
  with pytest.raises(UserError, match='not the output folder of a finished annotation run'):
    register_runs('unfinished', [tmp_path], tokenizer)
