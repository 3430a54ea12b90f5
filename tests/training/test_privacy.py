"""Private training: gradients clipped text by text, noise that nobody can take away, epsilon."""

import dataclasses
import itertools
import json
import os
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.data.augmentation import AugmentationConfig
from toolformer_jax.data.records import AnnotatedDocument, Document
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import AdaLoraConfig, LoraConfig
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.finetune import finetune, finetune_examples
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.optimizer import make_optimizer
from toolformer_jax.training.packing import pack, segments_of
from toolformer_jax.training.privacy.accounting import noise_for_epsilon, spent_epsilon
from toolformer_jax.training.privacy.config import PrivacyConfig
from toolformer_jax.training.privacy.gradients import add_noise, private_gradients
from toolformer_jax.training.privacy.sampling import (
  SECRET,
  PrivateRows,
  one_text_per_row,
  secret_seed,
)
from toolformer_jax.training.sources import TaskRow
from toolformer_jax.training.train_step import (
  abstract_train_state,
  init_train_state,
  make_train_step,
)

from .plain import plain_example

pytest.importorskip('jax_privacy')

EXACT = PrivacyConfig(noise_multiplier=0.0, l2_clip_norm=1e6)
LENGTH = 24  # bytes of every text: a mean of texts is then a mean of tokens
TEXTS = [f'{i} and {i * i * 7}'.ljust(LENGTH, '.') for i in range(8)]


@pytest.fixture
def rows(tokenizer):
  segments = [segments_of([plain_example(text, tokenizer)], tokenizer, 32, True) for text in TEXTS]
  return one_text_per_row(segments, 32)


def _sums(model, collection='params'):
  frozen = {name: tree for name, tree in model.variables.items() if name != collection}
  def loss_sums(params, rows, key, offsets_RTD=None):
    del key
    return next_token_loss(model.decoder, {**frozen, collection: params}, rows,
                           embedding_offsets_RTD=offsets_RTD)
  return loss_sums


def _gradients(model, rows, privacy, *, parts=1, collection='params', batch_size=None, step=0):
  def gradients(params, rows):
    return private_gradients(
        _sums(model, collection), privacy, params, rows, batch_size=batch_size or len(TEXTS),
        num_microbatches=parts, dropout_key=jax.random.key(0), noise_key=jax.random.key(1),
        step=jnp.int32(step))
  with jax.set_mesh(model.mesh):
    return jax.jit(gradients)(model.variables[collection], jax.tree.map(model.put_batch, rows))


def _clipped_by_hand(model, rows, norm, collection='params'):
  """Returns the sum of the clipped gradients, one text after the other."""
  loss_sums, params = _sums(model, collection), model.variables[collection]
  def loss(params, row):
    sums = loss_sums(params, row, None)
    return sums.objective / sums.weight_sum
  gradient, total = jax.jit(jax.grad(loss)), None
  for r in range(len(rows)):
    own = gradient(params, rows.take([r]))
    length = np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(own)))
    own = jax.tree.map(lambda leaf: leaf * min(1.0, norm / length), own)  # noqa: B023
    total = own if total is None else jax.tree.map(jnp.add, total, own)
  return total


def _assert_equal(one, other, factor=1.0):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b * factor, atol=1e-6, rtol=1e-5),
               one, other)


@pytest.mark.parametrize('parts', [1, 4])
@pytest.mark.parametrize('rank', [0, 2])
def test_gradients_are_clipped_text_by_text(make_model, rows, parts, rank):
  model = make_model(layers=1, adapter=LoraConfig(rank=rank) if rank else None)
  collection = 'adapter' if rank else 'params'
  privacy = PrivacyConfig(noise_multiplier=0.0, l2_clip_norm=0.5)
  grads, _ = _gradients(model, rows, privacy, parts=parts, collection=collection)
  _assert_equal(grads, _clipped_by_hand(model, rows, 0.5, collection), 1 / len(TEXTS))


def test_it_is_the_same_on_eight_devices(make_model, rows):
  privacy = PrivacyConfig(noise_multiplier=0.0, l2_clip_norm=0.5)
  one, _ = _gradients(make_model(layers=1), rows, privacy)
  eight, _ = _gradients(make_model(sharding.make_mesh(2, 2, 2), layers=1), rows, privacy)
  _assert_equal(one, eight)


def test_without_noise_and_clipping_it_is_the_gradient_of_the_mean(make_model, rows):
  model = make_model(layers=1)
  def mean(params):
    sums = _sums(model)(params, rows, None)
    return sums.objective / sums.weight_sum
  expected, gradient = jax.value_and_grad(mean)(model.variables['params'])
  grads, loss = _gradients(model, rows, EXACT)
  _assert_equal(grads, gradient)
  assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_padding_and_the_size_of_the_batch_do_not_count(make_model, rows):
  model = make_model(layers=1)
  some = rows.take([0, 1, 2]).pad(8)
  grads, _ = _gradients(model, some, EXACT, batch_size=4)
  # Divided by the expected size, 4, and not by the three texts that were drawn.
  _assert_equal(grads, _clipped_by_hand(model, rows.take([0, 1, 2]), 1e6), 1 / 4)


def test_no_text_moves_the_sum_by_more_than_the_clip_norm(make_model, rows):
  model = make_model(layers=1)
  privacy = PrivacyConfig(noise_multiplier=0.0, l2_clip_norm=0.01)
  everything, _ = _gradients(model, rows, privacy, batch_size=1)
  for left_out in range(len(TEXTS)):
    others = rows.take([i for i in range(len(TEXTS)) if i != left_out]).pad(8)
    without, _ = _gradients(model, others, privacy, batch_size=1)
    moved = jax.tree.map(jnp.subtract, everything, without)
    assert np.sqrt(sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(moved))) < 0.01 * 1.001


def test_noise_has_its_deviation_and_no_leaf_has_that_of_another():
  zeros = {'a': jnp.zeros((200, 200)), 'b': jnp.zeros((200, 200))}
  noise = add_noise(zeros, 3.0, jax.random.key(0))
  assert float(noise['a'].std()) == pytest.approx(3.0, rel=0.02)
  assert abs(np.corrcoef(noise['a'].ravel(), noise['b'].ravel())[0, 1]) < 0.03


def test_gradients_have_new_noise_at_each_step_in_proportion_to_the_clip_norm(make_model, rows):
  model = make_model(layers=1)
  privacy = PrivacyConfig(noise_multiplier=3.0, l2_clip_norm=0.5)
  clean, _ = _gradients(model, rows, dataclasses.replace(privacy, noise_multiplier=0.0))
  def noise(step):
    noisy, _ = _gradients(model, rows, privacy, step=step)
    parts = jax.tree.map(jnp.subtract, noisy, clean)
    return np.concatenate([np.ravel(part) for part in jax.tree.leaves(parts)])
  first, second = noise(0), noise(1)
  for one in first, second:
    assert one.std() == pytest.approx(3.0 * 0.5 / len(TEXTS), rel=0.05)
  assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_epsilon_is_that_of_dp_accounting():
  # 1,000 texts, batches of 64, 500 steps, noise 1: computed once with dp-accounting 0.6.0 alone.
  assert spent_epsilon(PrivacyConfig(), 64 / 1000, 500) == pytest.approx(9.922, abs=2e-3)


def test_epsilon_of_one_full_batch_is_that_of_the_gaussian_mechanism():
  # Every text is in the batch, so that nothing is amplified. Balle and Wang 2018, theorem 8:
  # delta = Phi(1 / 2s - e s) - exp(e) Phi(-1 / 2s - e s) for the noise s.
  from scipy.stats import norm
  epsilon, noise = spent_epsilon(PrivacyConfig(noise_multiplier=2.0), 1.0, 1), 2.0
  delta = (norm.cdf(1 / (2 * noise) - epsilon * noise)
           - np.exp(epsilon) * norm.cdf(-1 / (2 * noise) - epsilon * noise))
  assert delta == pytest.approx(1e-5, rel=0.01)


def test_epsilon_grows_with_the_steps_and_has_no_bound_without_noise():
  spent = [spent_epsilon(PrivacyConfig(), 0.1, steps) for steps in (0, 1, 10, 100)]
  assert spent[0] == 0 and spent == sorted(spent) and len(set(spent)) == 4
  assert spent_epsilon(EXACT, 0.1, 1) == float('inf')


def test_the_noise_for_an_epsilon_spends_it():
  noise = noise_for_epsilon(4.0, 1e-4, 0.05, 100)
  spent = spent_epsilon(PrivacyConfig(noise_multiplier=noise, delta=1e-4), 0.05, 100)
  assert spent == pytest.approx(4.0, abs=0.01)


def _private_rows(rows, mesh, batch_size=2, seed=5):
  return PrivateRows(rows, FinetuneConfig(batch_size=batch_size), PrivacyConfig(), mesh, seed)


def test_batches_are_poisson_samples(make_model, rows):
  private = _private_rows(rows, make_model().mesh)
  drawn = [picks[0][1] for picks in itertools.islice(private.picks(0), 4000)]
  often = np.bincount(np.concatenate(drawn), minlength=8) / 4000
  np.testing.assert_allclose(often, 0.25, atol=0.03)
  sizes = np.array([*map(len, drawn)])
  assert sizes.var() == pytest.approx(8 * 0.25 * 0.75, rel=0.1) and 0 in sizes
  # Two texts are drawn independently of each other.
  both = np.mean([{0, 1} <= {*indices} for indices in drawn])
  assert both == pytest.approx(0.25**2, abs=0.015)


def test_a_batch_depends_on_seed_and_step_alone(make_model, rows):
  mesh = make_model().mesh
  one, other = _private_rows(rows, mesh), _private_rows(rows, mesh, seed=6)
  def batches(private, start_step, end_step):
    picks = itertools.islice(private.picks(start_step), end_step - start_step)
    return [indices.tolist() for (_, indices), in picks]
  assert batches(one, 0, 9)[4:] == batches(one, 4, 9)
  assert batches(one, 0, 9) != batches(other, 0, 9)
  assert (jax.random.key_data(one.noise_key) != jax.random.key_data(other.noise_key)).any()


def test_every_batch_has_all_its_texts(make_model, rows):
  private = _private_rows(rows, make_model().mesh)
  for picks in itertools.islice(private.picks(0), 50):
    batch = private.rows(picks)
    assert len(batch) % private.row_multiple == 0
    assert batch.segment_ids_RT.any(-1).sum() == len(picks[0][1])
  everything = private.rows([(0, np.arange(8))])
  assert everything.segment_ids_RT.any(-1).sum() == 8


SETTINGS = FinetuneConfig(
    steps=6, batch_size=4, row_tokens=32, learning_rate=1e-2, save_every=2,
    privacy=PrivacyConfig(delta=1e-3))


def _run(make_model, tokenizer, path, config=SETTINGS, texts=TEXTS):
  return finetune_examples(
      model=make_model(layers=1), examples=[plain_example(text, tokenizer) for text in texts],
      config=config, output_dir=path, depends_on={})


def _metrics(path):
  return [json.loads(line) for line in (path / 'metrics.jsonl').read_text().splitlines()]


def test_a_run_says_what_it_spent_and_forgets_its_seed(make_model, tokenizer, tmp_path):
  _run(make_model, tokenizer, tmp_path)
  spent = {line['step']: line['epsilon'] for line in _metrics(tmp_path) if 'epsilon' in line}
  assert [*spent] == [2, 4, 6] and [*spent.values()] == sorted(spent.values())
  assert spent[6] == pytest.approx(spent_epsilon(SETTINGS.privacy, 0.5, 6))
  assert not (tmp_path / SECRET).exists()


def test_the_key_of_the_noise_is_no_part_of_the_program(make_model, rows):
  # Programs are written to the compilation cache, where the key would survive its file.
  model, optimizer = make_model(layers=1), make_optimizer(SETTINGS)
  abstract = abstract_train_state(model.decoder, 'params', optimizer, model.mesh)
  state = init_train_state(abstract, model.variables['params'], optimizer)
  step = make_train_step(model.decoder, 'params', optimizer, abstract, SETTINGS)
  words = 1234567891, 3987654321
  key = jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32), impl='threefry2x32')
  with jax.set_mesh(model.mesh):
    batch = jax.tree.map(model.put_batch, rows)
    program = step.trace({}, state, batch, noise_key=key).lower().as_text()
  assert not any(str(word) in program for word in words)
  with pytest.raises(ValueError, match='need a noise key'), jax.set_mesh(model.mesh):
    step.trace({}, state, batch)


def test_only_the_owner_can_read_the_seed(tmp_path):
  before = os.umask(0)
  try:
    seed = secret_seed(tmp_path, is_new=True)
  finally:
    os.umask(before)
  assert stat.S_IMODE((tmp_path / SECRET).stat().st_mode) == 0o600
  assert secret_seed(tmp_path, is_new=False) == seed


def test_losses_do_not_stop_a_run(make_model, tokenizer, tmp_path):
  # At this rate the loss rises at once, and a run without privacy ends with an error.
  wild = dataclasses.replace(SETTINGS, learning_rate=1.0, max_loss_rise=0.1)
  with pytest.raises(UserError, match='the loss explodes'):
    _run(make_model, tokenizer, tmp_path / 'public', dataclasses.replace(wild, privacy=None))
  assert _run(make_model, tokenizer, tmp_path / 'private', wild) is not None
  assert [line['step'] for line in _metrics(tmp_path / 'private')] == [1, 2, 3, 4, 5, 6]


class _Killed(Exception):
  pass


def test_a_killed_run_has_the_same_noise_again(make_model, tokenizer, tmp_path, monkeypatch):
  monkeypatch.setattr('secrets.randbits', lambda bits: 12345)
  whole = _run(make_model, tokenizer, tmp_path / 'whole')
  from toolformer_jax.training import trainer
  make_train_step = trainer.make_train_step
  def dying(*arguments):
    step = make_train_step(*arguments)
    def run(frozen, state, batch, **noise):
      if int(state.step) == 3:
        raise _Killed
      return step(frozen, state, batch, **noise)
    run.trace = step.trace
    return run
  monkeypatch.setattr(trainer, 'make_train_step', dying)
  with pytest.raises(_Killed):
    _run(make_model, tokenizer, tmp_path / 'killed')
  monkeypatch.setattr(trainer, 'make_train_step', make_train_step)
  monkeypatch.setattr('secrets.randbits', lambda bits: 54321)  # it is not drawn again
  resumed = _run(make_model, tokenizer, tmp_path / 'killed')
  jax.tree.map(np.testing.assert_array_equal, whole.variables, resumed.variables)
  def values(name):
    return [(line['loss'], line.get('epsilon')) for line in _metrics(tmp_path / name)]
  assert values('killed') == values('whole')


def test_a_run_that_lost_its_seed_does_not_go_on(make_model, tokenizer, tmp_path, monkeypatch):
  from toolformer_jax.training import finetune as module
  monkeypatch.setattr(module, 'save_model', lambda *_: (_ for _ in ()).throw(_Killed))
  with pytest.raises(_Killed):
    _run(make_model, tokenizer, tmp_path)
  (tmp_path / SECRET).unlink()
  with pytest.raises(UserError, match='private_seed.json is gone'):
    _run(make_model, tokenizer, tmp_path)


def test_two_runs_have_different_noise(make_model, tokenizer, tmp_path):
  everything = dataclasses.replace(SETTINGS, batch_size=8)  # every batch has all texts
  one, other = (_run(make_model, tokenizer, tmp_path / name, everything) for name in 'ab')
  assert any((a != b).any() for a, b in zip(
      *(jax.tree.leaves(model.variables) for model in (one, other)), strict=True))


def _documents(ids):
  return [AnnotatedDocument(Document(one, TEXTS[0]), ()) for one in ids]


def test_nothing_is_held_out_of_private_texts(make_model, tokenizer, tmp_path):
  result = finetune(make_model(layers=1), _documents('abcdefghijkl'), config=SETTINGS,
                    output_dir=tmp_path, depends_on={})
  assert result.texts == 12 and not any('dev_loss' in line for line in result.metrics)
  spent = result.metrics[-1]['epsilon']
  assert f'({spent:.2f}, 0.001)-differential privacy' in result.summary()


def test_a_run_without_noise_says_that_nothing_is_protected(make_model, tokenizer, tmp_path):
  result = finetune(
      make_model(layers=1), _documents('abcdefgh'), output_dir=tmp_path, depends_on={},
      config=dataclasses.replace(SETTINGS, steps=2, privacy=PrivacyConfig(0.0, delta=1e-3)))
  assert not any('epsilon' in line for line in result.metrics)
  assert 'The texts are not protected' in result.summary()


@pytest.mark.parametrize('mixture', [
  MixtureConfig(cap=6), MixtureConfig(rates={'text': 0.5}), MixtureConfig(rates={'text': 0.0})])
def test_no_text_decides_whether_another_is_learned(make_model, tmp_path, mixture):
  # With a cap of six, a seventh text takes the place of another one.
  with pytest.raises(UserError, match='leaves out . of 8 texts'):
    finetune(make_model(layers=1), _documents('abcdefgh'), config=SETTINGS, output_dir=tmp_path,
             depends_on={}, mixture=mixture)


def test_changed_copies_are_refused(make_model, tmp_path):
  rows = [TaskRow(str(i), 'some words of a text', ' a label') for i in range(8)]
  mixture = MixtureConfig(augmentation=AugmentationConfig(word_swap=0.9))
  with pytest.raises(UserError, match='2 times in the data.* no augmentation'):
    finetune(make_model(layers=1), rows, config=SETTINGS, output_dir=tmp_path, depends_on={},
             mixture=mixture)


def test_a_text_without_tokens_is_padding(tokenizer):
  segments = [segments_of([plain_example(text, tokenizer)], tokenizer, 32, False)
              for text in ('some words', '')]
  segments[1] = []  # of a tokenizer without a start token
  assert one_text_per_row(segments, 32).segment_ids_RT.any(-1).tolist() == [True, False]


@pytest.mark.parametrize(('ids', 'rates'), [('abcdefga', {}), ('abcdefgh', {'text': 2.0})])
def test_a_text_that_stands_twice_is_refused(make_model, tmp_path, ids, rates):
  with pytest.raises(UserError, match='2 times in the data'):
    finetune(make_model(layers=1), _documents(ids), config=SETTINGS, output_dir=tmp_path,
             depends_on={}, mixture=MixtureConfig(rates=rates))


@pytest.mark.parametrize(('change', 'message'), [
  ({'batch_rows': 4}, 'packs several texts'), ({'adversarial_epsilon': 1.0}, 'cannot be combined'),
  ({'adapter': AdaLoraConfig()}, 'cannot be combined'),
])
def test_settings_that_break_the_guarantee_are_refused(change, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(SETTINGS, **change)


def test_texts_that_break_the_guarantee_are_refused(make_model, tokenizer, tmp_path):
  with pytest.raises(UserError, match='must fit into a row'):
    _run(make_model, tokenizer, tmp_path, texts=[*TEXTS, 'x' * 80])
  with pytest.raises(UserError, match='delta is 0.001; with 1001'):
    PrivateRows(pack([plain_example('a', tokenizer)] * 2, tokenizer, 4, True).take([0] * 1001),
                SETTINGS, SETTINGS.privacy, make_model().mesh, 0)
  with pytest.raises(UserError, match='only 8 texts'):
    _run(make_model, tokenizer, tmp_path, dataclasses.replace(SETTINGS, batch_size=9))
