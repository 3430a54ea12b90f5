"""Collectives of programs whose number and size are known by construction."""

import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from toolformer_jax.planning.hlo import Collectives, collectives
from toolformer_jax.planning.slices import Slice

SPLIT = PartitionSpec('data')
X = jax.ShapeDtypeStruct((16, 64), jnp.float32)  # 2 rows on each of 8 devices
PART = 2 * 64 * 4  # bytes of it on each device


def _found(function, mesh, out=SPLIT) -> Collectives:
  """Returns what is read from `function` of X, which runs on each device's part."""
  x = jax.ShapeDtypeStruct(X.shape, X.dtype, sharding=NamedSharding(mesh, SPLIT))
  mapped = jax.shard_map(function, mesh=mesh, in_specs=SPLIT, out_specs=out, check_vma=False)
  return collectives(jax.jit(mapped).lower(x).compile().as_text())


def _summed(x, _):
  return jnp.tanh(jax.lax.psum(x, 'data')), None


def _looped(x, _, times):
  return jax.lax.scan(_summed, x, length=times)[0], None


@pytest.fixture(scope='module')
def cpus(mesh_of):
  """Eight simulated devices along one axis."""
  return mesh_of(8, 1, 1)


def test_a_loop_counts_as_often_as_it_goes_round(cpus):
  found = _found(lambda x: jax.lax.scan(_summed, x, length=7)[0], cpus)
  assert found.counts == {'all-reduce': 7} and found.bytes == {'all-reduce': 7 * PART}
  assert not found.unknown_loops


def test_loops_in_loops_multiply(cpus):
  inner = functools.partial(_looped, times=5)
  found = _found(lambda x: jax.lax.scan(inner, x, length=3)[0], cpus)
  assert found.counts == {'all-reduce': 15} and found.bytes == {'all-reduce': 15 * PART}


def test_each_kind_and_its_whole_array(cpus):
  def gathered(x):
    return jax.lax.all_gather(x, 'data', tiled=True)
  def scattered(x):
    return jax.lax.psum_scatter(jnp.tile(x, (8, 1)), 'data', tiled=True)
  def permuted(x):
    return jax.lax.ppermute(x, 'data', [(i, (i + 1) % 8) for i in range(8)])
  assert _found(gathered, cpus, PartitionSpec()).bytes == {'all-gather': 8 * PART}
  assert _found(scattered, cpus).bytes == {'reduce-scatter': 8 * PART}
  assert _found(permuted, cpus).bytes == {'collective-permute': PART}


def test_no_collective_in_a_program_of_each_device_alone(cpus):
  assert _found(jnp.tanh, cpus) == Collectives()


def test_a_loop_that_depends_on_data_is_reported(cpus):
  def until_small(x):
    return jax.lax.while_loop(lambda x: jnp.abs(x).max() > 1, lambda x: _summed(x, 0)[0] / 9, x)
  found = _found(until_small, cpus)
  assert found.counts['all-reduce'] == 1 and found.unknown_loops == 1


def test_a_tpus_program_counts_the_same(libtpu):
  devices = Slice.named('v5e-8').devices()
  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)
  inner = functools.partial(_looped, times=5)
  found = _found(lambda x: jax.lax.scan(inner, x, length=3)[0], mesh)
  assert found.counts == {'all-reduce': 15} and found.bytes == {'all-reduce': 15 * PART}
  assert not found.unknown_loops


# As the TPU's compiler writes what the programs above do not have: a counter that does not go up by
# one and whose number of rounds is not said, and a collective cut into a chain of fusions.
_TPU = '''HloModule program, is_scheduled=true

%link (p: bf16[4,8]) -> bf16[4,64] {
  %p = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather.1 = bf16[4,64]{1,0} all-gather(%p), channel_id=9, frontend_attributes={chain_id="1"}
}

%next_link (q: bf16[4,8]) -> bf16[4,64] {
  %q = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather.2 = bf16[4,64]{1,0} all-gather(%q), channel_id=9, frontend_attributes={chain_id="1"}
}

%body (state: (bf16[4,8], u32[])) -> (bf16[4,8], u32[]) {
  %state = (bf16[4,8]{1,0}, u32[]{:T(128)}) parameter(0)
  %x = bf16[4,8]{1,0} get-tuple-element(%state), index=0
  %i = u32[]{:T(128)} get-tuple-element(%state), index=1
  %two = u32[]{:T(128)} constant(2)
  %start = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[], u32[]) collective-permute-start(%x), channel_id=3
  %done = bf16[4,8]{1,0} collective-permute-done(%start)
  %more = u32[]{:T(128)} add(%i, %two), metadata={op_name="a (b) = c"}
  ROOT %next = (bf16[4,8]{1,0}, u32[]{:T(128)}) tuple(%done, %more)
}

%condition (now: (bf16[4,8], u32[])) -> pred[] {
  %limit = u32[]{:T(128)} constant(8)
  %now = (bf16[4,8]{1,0}, u32[]{:T(128)}) parameter(0)
  %j = u32[]{:T(128)} get-tuple-element(%now), index=1
  ROOT %less = pred[]{:T(512)} compare(%j, %limit), direction=LT
}

ENTRY %main (a: bf16[4,8]) -> bf16[4,64] {
  %a = bf16[4,8]{1,0} parameter(0)
  %zero = u32[]{:T(128)} constant(0)
  %copied = u32[]{:T(128)} copy(%zero)
  %first = (bf16[4,8]{1,0}, u32[]{:T(128)}) tuple(%a, %copied)
  %loop = (bf16[4,8]{1,0}, u32[]{:T(128)}) while(%first), condition=%condition, body=%body
  %b = bf16[4,8]{1,0} get-tuple-element(%loop), index=0
  %one = bf16[4,64]{1,0} fusion(%b), kind=kOutput, calls=%link
  ROOT %two_of_it = bf16[4,64]{1,0} fusion(%b), kind=kOutput, calls=%next_link
}
'''


def test_what_only_tpus_write():
  found = collectives(_TPU)
  assert found.counts == {'collective-permute': 4, 'all-gather': 1}
  assert found.bytes == {'collective-permute': 4 * 64, 'all-gather': 4 * 64 * 2}
  assert not found.unknown_loops
