"""Distillation: its loss is the divergence from the teacher, chunk by chunk and on any mesh."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

import toolformer_jax as tf_jax
from toolformer_jax import DistillationConfig, sharding
from toolformer_jax.commands import finetune as command
from toolformer_jax.commands.parsers import command_parser
from toolformer_jax.config.loading import load
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.planning.programs import program
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import finetune_examples
from toolformer_jax.training.loss import next_token_loss
from toolformer_jax.training.packing import pack
from toolformer_jax.training.privacy.config import PrivacyConfig
from toolformer_jax.training.recovery.distillation import Teacher, distillation_loss

from ..conftest import END
from .plain import plain_example

SETTINGS = FinetuneConfig(steps=6, batch_rows=8, row_tokens=32, learning_rate=1e-2, save_every=2,
                          distillation=DistillationConfig(weight=0.7, temperature=2.0))
TEXTS = [f'the number after {i} is {i + 1}.' for i in range(24)]
DOCUMENTS = [tf_jax.Document(str(i), text) for i, text in enumerate(TEXTS)]


@pytest.fixture
def examples(tokenizer):
  return [plain_example(text, tokenizer) for text in TEXTS]


@pytest.fixture
def rows(examples, tokenizer):
  packed = pack(examples, tokenizer, 37, True)  # 37: the last chunk is not full
  return dataclasses.replace(packed, loss_weights_RT=packed.loss_weights_RT * np.float32(0.3))


@pytest.fixture
def teacher_of(make_model):
  """Returns a function from a mesh to a larger model with other weights."""
  def make(mesh=None, **changes):
    model = make_model(mesh, **{'layers': 3, 'embed_dim': 32, 'tied_head': False, **changes})
    variables = jax.tree.map(lambda x: x * 1.3, model.variables)
    return dataclasses.replace(model, variables=variables)
  return make


def _sums(model, params, rows, teacher, config, **settings):
  return next_token_loss(model.decoder, {'params': params}, rows,
                         teacher=Teacher(teacher.decoder, teacher.variables, config), **settings)


def _value_and_gradient(model, rows, teacher, config, **settings):
  with jax.set_mesh(model.mesh):
    def objective(params, variables, rows):
      return _sums(model, params, rows, dataclasses.replace(teacher, variables=variables), config,
                   **settings).objective
    batch = jax.tree.map(model.put_batch, rows)
    return jax.jit(jax.value_and_grad(objective))(
        model.variables['params'], teacher.variables, batch)


def _logits(model, rows):
  return np.asarray(model.decoder.apply(
      model.variables, rows.input_tokens_RT, positions_BT=rows.positions_RT,
      segment_ids_BT=rows.segment_ids_RT)[0], np.float64)


def _log_softmax(x):
  x = x - x.max(-1, keepdims=True)
  return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize(('weight', 'temperature'), [(0.5, 1.0), (1.0, 3.0), (0.2, 0.5)])
def test_the_objective_is_that_of_hinton(make_model, teacher_of, rows, weight, temperature,
                                         smoothing):
  model, teacher = make_model(), teacher_of()
  sums = _sums(model, model.variables['params'], rows, teacher,
               DistillationConfig(weight, temperature), label_smoothing=smoothing)
  own, learned = _logits(model, rows), _logits(teacher, rows)
  log_p = _log_softmax(learned / temperature)
  divergence = (np.exp(log_p) * (log_p - _log_softmax(own / temperature))).sum(-1)
  targets = rows.target_tokens_RT[..., None]
  nll = -np.take_along_axis(_log_softmax(own), targets, -1)[..., 0]
  smoothed = (1 - smoothing) * nll - smoothing * _log_softmax(own).mean(-1)
  wanted = (1 - weight) * smoothed + weight * temperature**2 * divergence
  assert float(sums.objective) == pytest.approx((wanted * rows.loss_weights_RT).sum(), rel=1e-5)
  assert float(sums.cross_entropy) == pytest.approx((nll * rows.loss_weights_RT).sum(), rel=1e-5)


@pytest.mark.parametrize('temperature', [1.0, 2.5])
def test_the_divergence_and_its_gradient_are_those_of_torch(temperature):
  torch = pytest.importorskip('torch')
  own, learned = np.random.default_rng(0).normal(size=(2, 5, 7, 50)).astype(np.float32) * 3
  theirs = torch.tensor(own, requires_grad=True)
  losses = temperature**2 * torch.nn.functional.kl_div(
      torch.log_softmax(theirs / temperature, -1),
      torch.log_softmax(torch.tensor(learned) / temperature, -1), reduction='none',
      log_target=True).sum(-1)
  losses.sum().backward()
  np.testing.assert_allclose(distillation_loss(own, learned, temperature),
                             losses.detach().numpy(), rtol=1e-5, atol=1e-6)
  gradient = jax.grad(lambda x: distillation_loss(x, learned, temperature).sum())(jnp.asarray(own))
  np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_a_model_learns_nothing_from_itself(make_model, rows):
  model = make_model()
  value, gradient = _value_and_gradient(model, rows, model, DistillationConfig(1.0, 2.0))
  assert abs(float(value)) < 1e-4
  assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient)) < 1e-5


@pytest.mark.parametrize(('mesh', 'loss_tokens'), [
  ((1, 1, 1), 1), ((1, 1, 1), 100), ((8, 1, 1), 16), ((1, 2, 4), 16)])
def test_chunks_and_devices_change_nothing(make_model, teacher_of, rows, mesh, loss_tokens):
  config = DistillationConfig(0.6, 2.0)
  expected, wanted = _value_and_gradient(make_model(), rows, teacher_of(), config)
  mesh = sharding.make_mesh(*mesh, devices=jax.devices()[:np.prod(mesh)])
  value, gradient = _value_and_gradient(make_model(mesh), rows.pad(-(-len(rows) // 8) * 8),
                                        teacher_of(mesh), config, loss_tokens=loss_tokens)
  assert float(value) == pytest.approx(float(expected), rel=1e-5)
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5),
               gradient, wanted)


def test_never_all_logits_are_in_memory(make_model, teacher_of, tokenizer):
  model, teacher = (make(layers=1, vocab_size=8192) for make in (make_model, teacher_of))
  rows = pack([plain_example('x' * 200, tokenizer) for _ in range(4)], tokenizer, 256, True)
  def temporary(loss_tokens):
    def total(params, variables):
      return _sums(model, params, rows, dataclasses.replace(teacher, variables=variables),
                   DistillationConfig(), loss_tokens=loss_tokens).objective
    lowered = jax.jit(jax.grad(total)).lower(model.variables['params'], teacher.variables)
    return lowered.compile().memory_analysis().temp_size_in_bytes
  logits = 2 * rows.input_tokens_RT.size * 8192 * 4  # bytes, of both models
  assert temporary(1024) > logits
  assert temporary(128) < temporary(1024) - 0.8 * logits


def _run(model, examples, settings, folder, teacher=None, **depends_on):
  return finetune_examples(model=model, examples=examples, config=settings, output_dir=folder,
                           depends_on=depends_on, teacher=teacher)


def _assert_equal(one, other, atol):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol),
               one.variables, other.variables)


@pytest.mark.parametrize('adapter', [None, LoraConfig(rank=4)], ids=['all weights', 'lora'])
def test_a_teacher_without_weight_teaches_nothing(make_model, teacher_of, examples, adapter,
                                                  tmp_path):
  alone = dataclasses.replace(SETTINGS, adapter=adapter, distillation=None)
  silent = dataclasses.replace(alone, distillation=DistillationConfig(weight=0.0))
  expected = _run(make_model(), examples, alone, tmp_path / 'alone')
  _assert_equal(_run(make_model(), examples, silent, tmp_path / 'silent', teacher_of()), expected,
                1e-6)


@pytest.mark.parametrize(('adapter', 'parts'), [(None, 2), (LoraConfig(rank=4), 1)],
                         ids=['all weights', 'lora'])
def test_what_the_model_says_comes_closer_to_the_teacher(
    make_model, teacher_of, examples, rows, adapter, parts, tmp_path):
  settings = dataclasses.replace(
      SETTINGS, steps=20, adapter=adapter, num_microbatches=parts,
      distillation=DistillationConfig(weight=1.0))
  teacher = teacher_of()
  before = jax.tree.map(np.array, teacher.variables)
  def divergence(model):
    log_p, log_q = _log_softmax(_logits(teacher, rows)), _log_softmax(_logits(model, rows))
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)[rows.loss_weights_RT > 0].mean()
  first = divergence(make_model())
  trained = _run(make_model(), examples, settings, tmp_path, teacher)
  assert divergence(trained) < 0.8 * first
  jax.tree.map(np.testing.assert_array_equal, before, teacher.variables)  # it is left as it is


def test_eight_devices_train_as_one(make_model, teacher_of, examples, tmp_path):
  def run(mesh, name):
    return _run(make_model(mesh), examples, SETTINGS, tmp_path / name, teacher_of(mesh))
  # Adam's first steps have the size of the rate, whatever the size of a rounding error is.
  _assert_equal(run(sharding.make_mesh(2, 2, 2), 'eight'), run(None, 'one'), 2e-3)


@pytest.mark.parametrize('changes', [{'dtype': 'bfloat16'}, {'adapter': LoraConfig(rank=2)}],
                         ids=['bfloat16', 'adapter'])
def test_a_teacher_computes_as_it_does_alone(make_model, teacher_of, rows, changes):
  model, teacher = make_model(), teacher_of(**changes).for_inference()
  value, _ = _value_and_gradient(model, rows, teacher, DistillationConfig(1.0))
  log_p, log_q = _log_softmax(_logits(teacher, rows)), _log_softmax(_logits(model, rows))
  wanted = ((np.exp(log_p) * (log_p - log_q)).sum(-1) * rows.loss_weights_RT).sum()
  assert float(value) == pytest.approx(wanted, rel=1e-4)


def test_a_run_goes_on_with_its_own_teacher_alone(make_model, teacher_of, tmp_path):
  run = functools.partial(tf_jax.finetune, data=DOCUMENTS, output_dir=tmp_path, config=SETTINGS,
                          mixture=tf_jax.MixtureConfig(dev_texts=0))
  first = run(make_model(), teacher=teacher_of())
  again = run(make_model(), teacher=teacher_of())
  _assert_equal(again.model, first.model, 0)
  with pytest.raises(UserError, match=r'another configuration: teacher \('):
    run(make_model(), teacher=make_model())


def test_a_teacher_must_fit(make_model, teacher_of, tmp_path):
  def run(teacher, **changes):
    tf_jax.finetune(make_model(), DOCUMENTS, teacher=teacher, output_dir=tmp_path,
                    config=dataclasses.replace(SETTINGS, **changes))
  with pytest.raises(UserError, match='a vocabulary of 300 tokens, and the model one of 259'):
    run(teacher_of(vocab_size=300))
  with pytest.raises(UserError, match='row_tokens is 32, but the teacher has only 16 positions'):
    run(teacher_of(max_positions=16))
  other = Tokenizer.byte_level_bpe([*sorted(ByteLevel.alphabet()), 'Ġ<', '=>', END],
                                   [('Ġ', '<'), ('=', '>')], [END], split_digits=True, bos_id=None,
                                   eos_id=258)
  with pytest.raises(UserError, match='the teacher has another tokenizer than the model'):
    run(dataclasses.replace(teacher_of(), tokenizer=other))
  with pytest.raises(UserError, match='the teacher is on other devices than the model'):
    run(teacher_of(sharding.make_mesh(2, 2, 2)))
  with pytest.raises(UserError, match='distillation needs a teacher'):
    run(None)
  model = make_model()
  with pytest.raises(UserError, match='the teacher has the same arrays as the model'):
    tf_jax.finetune(model, DOCUMENTS, teacher=model, output_dir=tmp_path, config=SETTINGS)
  with pytest.raises(UserError, match=r'a teacher has no effect .* @DistillationConfig\(\)'):
    run(teacher_of(), distillation=None)


def test_where_there_is_no_teacher_distillation_is_refused(make_model):
  with pytest.raises(UserError, match='distillation needs a teacher'):
    tf_jax.pretrain(DOCUMENTS, output_dir='unused', config=SETTINGS)
  with pytest.raises(UserError, match='distillation needs a teacher'):
    program('train', make_model().config, make_model().mesh, 4, 32, SETTINGS)
  pytest.importorskip('jax_privacy')
  with pytest.raises(UserError, match='cannot be combined with distillation'):
    dataclasses.replace(SETTINGS, batch_rows=0, privacy=PrivacyConfig())


@pytest.mark.parametrize('by_gin', [False, True])
def test_the_command_binds_the_distillation_of_its_teacher(make_model, tmp_path, monkeypatch,
                                                           by_gin):
  """Whether an option or a gin file names it; the saved configuration, too, has the teacher."""
  for name in ('model', 'teacher'):
    tf_jax.export(make_model(), output_dir=tmp_path / name)
  (tmp_path / 'texts.jsonl').write_text('{"text": "1 + 2 equals 3"}\n' * 4)
  found = {}
  def finetune(model, texts, **arguments):
    found.update(arguments)
    raise KeyboardInterrupt
  monkeypatch.setattr('toolformer_jax.api.finetune', finetune)
  argv = ['--data', tmp_path / 'texts.jsonl', '--checkpoint', tmp_path / 'model', '--output_dir',
          tmp_path / 'out']
  if by_gin:
    (tmp_path / 'own.gin').write_text(f'TEACHER = {str(tmp_path / "teacher")!r}\n')
    argv += ['--gin_file', tmp_path / 'own.gin']
  else:
    argv += ['--teacher', tmp_path / 'teacher']
  args = command_parser('finetune').parse_args(list(map(str, argv)))
  args.bindings = ['DistillationConfig.weight = 0.9']
  with pytest.raises(KeyboardInterrupt):
    command.run(args)
  assert found['config'].distillation == DistillationConfig(weight=0.9)
  (tmp_path / 'config.gin').write_text(found['extra_files']['config.gin'])
  saved = load([str(tmp_path / 'config.gin')], [])
  assert saved.finetune == found['config']
  assert saved.macros['TEACHER'] == found['teacher'] == str(tmp_path / 'teacher')
