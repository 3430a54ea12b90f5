"""The paper's model on 8 chips of v5e, by the TPU's compiler and the programs that really run."""

import pytest

from toolformer_jax import flops
from toolformer_jax.planning.plan import make_plan
from toolformer_jax.planning.slices import GIB

pytestmark = pytest.mark.usefixtures('libtpu')


def test_fine_tuning_fits_with_32_rows(gpt_j):
  plan = make_plan(gpt_j(batch=32))
  assert plan.fits and plan.kernel
  assert plan.memory.arguments / GIB == pytest.approx(7.05, abs=0.01)
  assert 0 < plan.memory.headroom < 6 * GIB
  # Weights in bfloat16 are gathered in the forward and in the backward pass, and gradients are
  # scattered: three times what the products of the blocks consist of, at least.
  products = 2 * flops.forward_flops(plan.request.config, 1) / 2
  assert sum(plan.collectives.bytes.values()) > 3 * products
  assert not plan.collectives.unknown_loops
  assert plan.bound.utilization == pytest.approx(0.75, abs=0.01)


def test_fine_tuning_with_256_rows_does_not_fit(gpt_j):
  plan = make_plan(gpt_j(batch=256))
  assert not plan.fits and plan.memory is None
  assert 'memory' in plan.reason and '15.75G' in plan.reason


def test_scoring_fits(gpt_j):
  plan = make_plan(gpt_j(step='score', batch=64, length=512))
  assert plan.fits and plan.kernel
  assert plan.memory.arguments / GIB == pytest.approx(6.05e9 * 2 / 8 / GIB, rel=0.01)


@pytest.mark.parametrize('step', ['prefill', 'decode'])
def test_prefilling_and_decoding_fit(gpt_j, step):
  plan = make_plan(gpt_j(step=step, batch=64, length=1024, mesh=(1, 1, 8)))
  assert plan.fits
  weights, keys = 6.05e9 * 2 / 8, 64 * 1024 * 459e3 / 8
  assert plan.memory.arguments == pytest.approx(weights + keys, rel=0.02)
  assert plan.memory.headroom > 0
