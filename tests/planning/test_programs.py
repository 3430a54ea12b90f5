"""The programs that are planned: their arguments, and the work that the bounds are made of."""

import jax
import pytest

from toolformer_jax.models import flops
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.planning.compilation import Compiled
from toolformer_jax.planning.hlo import Collectives
from toolformer_jax.planning.plan import judge
from toolformer_jax.planning.programs import argument_bytes, program
from toolformer_jax.planning.roofline import roofline
from toolformer_jax.planning.slices import GIB, Slice
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.privacy.config import PrivacyConfig

SMALL = DecoderConfig(vocab_size=96, layers=2, embed_dim=32, heads=4, kv_heads=2, head_dim=8,
                      mlp_dim=64, max_positions=64, rotary_dim=8)
NOTHING = 'ENTRY %main (a: f32[]) -> f32[] {\n  ROOT %a = f32[] parameter(0)\n}'
LARGE_STATE = FinetuneConfig(remat_policy='full', first_moment='bfloat16')


@pytest.mark.parametrize('step', ['train', 'score', 'prefill', 'decode'])
def test_the_compiler_counts_the_same_arguments(mesh_of, step):
  mesh = mesh_of(1, 2, 2)
  planned = program(step, SMALL, mesh, 4, 32, FinetuneConfig())
  sizes = planned.lower(mesh).compile().memory_analysis()
  scalars = 64  # of the few numbers that come without an array, at most
  assert 0 <= sizes.argument_size_in_bytes - argument_bytes(planned.arguments) <= scalars


def test_state_of_gpt_j_by_hand(mesh_of, gpt_j):
  request = gpt_j()
  planned = program('train', request.config, mesh_of(1, 8, 1), 32, 1024, request.finetune)
  # Parameters and second moments of 4 bytes, first ones of 2, on 8 chips; the batch is small.
  assert argument_bytes(planned.arguments) == pytest.approx(6_050_882_784 * 10 / 8, rel=1e-3)
  again = 32 * flops.recomputed_flops(request.config, 1024, 'full')
  assert planned.flops == planned.useful_flops + again


def test_adapters_need_little_state(mesh_of, gpt_j):
  settings = FinetuneConfig(adapter=LoraConfig(rank=8))
  planned = program('train', gpt_j().config, mesh_of(1, 8, 1), 32, 1024, settings)
  frozen, state, *_ = planned.arguments
  assert argument_bytes(frozen) == pytest.approx(6_050_882_784 * 4 / 8, rel=1e-3)
  assert len(jax.tree.leaves(state.params)) == 2 * 6  # two for each product of a block
  assert argument_bytes(state) < argument_bytes(frozen) / 20


def test_private_training_can_be_planned(mesh_of):
  pytest.importorskip('jax_privacy')
  mesh = mesh_of(1, 2, 2)
  settings = FinetuneConfig(privacy=PrivacyConfig())
  planned = program('train', SMALL, mesh, 4, 32, settings)
  assert 'func.func public @main' in planned.lower(mesh).as_text()
  public = program('train', SMALL, mesh, 4, 32, FinetuneConfig())
  key_bytes = argument_bytes(planned.arguments) - argument_bytes(public.arguments)
  assert 0 < key_bytes <= 16


def test_rows_that_the_mesh_does_not_divide_are_computed_everywhere(mesh_of):
  def work(batch):
    return program('score', SMALL, mesh_of(1, 8, 1), batch, 32, FinetuneConfig())
  assert work(8).flops == work(8).useful_flops
  assert work(4).flops == 8 * work(4).useful_flops


@pytest.mark.parametrize(('name', 'mesh', 'tokens_per_s'), [
    ('v5e-8', (1, 1, 8), 9800), ('v6e-8', (1, 1, 8), 19_000), ('v4-8', (1, 1, 4), 7300),
    ('v5p-8', (1, 1, 4), 17_000)])
def test_decoding_gpt_j_is_bound_by_memory(mesh_of, gpt_j, name, mesh, tokens_per_s):
  """64 texts of 1,024 tokens: all weights and keys are read for every token."""
  one = Slice.named(name)
  work = program('decode', gpt_j().config, mesh_of(*mesh), 64, 1024, LARGE_STATE)
  bound = _bound(one, work)
  assert bound.memory_s > bound.compute_s
  assert bound.tokens_per_s == pytest.approx(tokens_per_s, rel=0.04)


def test_training_is_bound_by_arithmetic(mesh_of, gpt_j):
  work = program('train', gpt_j().config, mesh_of(1, 8, 1), 32, 1024, LARGE_STATE)
  bound = _bound(Slice.named('v5e-8'), work)
  assert bound.compute_s > bound.memory_s
  # Seven twelfths of the blocks' forward pass are repeated: all but two products of four.
  assert bound.utilization == pytest.approx(3 / (3 + 7 / 12), rel=0.01)


def test_links_bound_what_sends_much():
  sent = Collectives()
  sent.bytes.update({'all-reduce': 10 * GIB, 'all-gather': GIB})
  bound = roofline(chip=Slice.named('v5e-8').chip, chips=8, tokens=1000, useful_flops=1e12,
                   flops=1e12, traffic=1e6, collectives=sent)
  assert bound.links_s == pytest.approx(21 * GIB / 200e9)
  assert bound.tokens_per_s == pytest.approx(1000 / bound.links_s)


@pytest.mark.parametrize('over', [-1, 0, 1])
def test_arguments_and_temporaries_fit_together(mesh_of, gpt_j, over):
  request = gpt_j()
  work = program('train', request.config, mesh_of(1, 8, 1), 32, 1024, LARGE_STATE)
  temporaries = request.slice.usable_memory - 7 * GIB - 5 + over
  plan = judge(request, work, Compiled(1.0, 7 * GIB, 5, temporaries, True, NOTHING))
  assert plan.fits == (over <= 0)
  if plan.fits:
    assert plan.fit.headroom == -over and not plan.reason
  else:
    assert 'more than the 15.75 GiB' in plan.reason


def _bound(one, work):
  return roofline(chip=one.chip, chips=one.chips, tokens=work.tokens,
                  useful_flops=work.useful_flops, flops=work.flops, traffic=work.traffic,
                  collectives=Collectives())
