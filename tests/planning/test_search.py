"""The search finds the largest batch and the best mesh, whatever the compiler says."""

import math

from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.planning.hlo import Collectives
from toolformer_jax.planning.plan import Fit, Plan, default_mesh
from toolformer_jax.planning.roofline import Roofline
from toolformer_jax.planning.search import largest_batch, meshes, search_mesh


def _planner(most_rows, speed=lambda mesh: 1.0):
  """Returns a planner by which batches of up to `most_rows` rows fit."""
  def plan(request):
    bound = Roofline(1.0, 1.0, 1.0, speed(request.mesh), 0.5)
    fit = Fit(0, 0, True, Collectives(), bound) if request.batch <= most_rows else None
    return Plan(request, 0, 0.0, 0, fit)
  return plan


@given(most_rows=st.integers(0, 3000), batch=st.integers(1, 500), ways=st.sampled_from([1, 2, 8]))
def test_the_largest_batch_that_fits(gpt_j, most_rows, batch, ways):
  planner = _planner(most_rows)
  request = gpt_j(batch=batch * ways, mesh=(1, ways, 8 // ways))
  found = largest_batch(planner(request), planner)
  assert found.fits == (most_rows >= ways)
  if found.fits:
    assert found.request.batch == most_rows // ways * ways


def test_the_fastest_mesh_that_fits(gpt_j):
  def speed(mesh):
    return {(1, 4, 2): 3.0, (1, 8, 1): 9.0}.get(mesh, 1.0)
  found = search_mesh(gpt_j(batch=64), _planner(100, speed))
  assert found.request.mesh == (1, 8, 1) and found.request.batch == 96


def test_a_batch_that_fits_nowhere_is_halved(gpt_j):
  found = search_mesh(gpt_j(batch=64), _planner(21))
  ways = math.prod(found.request.mesh[:2])
  assert found.fits and found.request.batch == 21 // ways * ways


def test_nothing_fits(gpt_j):
  found = search_mesh(gpt_j(batch=4), _planner(0))
  assert not found.fits and found.request.batch == 1


def test_heads_are_split_as_far_as_they_go(gpt_j):
  config = gpt_j().config
  assert default_mesh('train', config, 8) == (1, 8, 1)
  assert default_mesh('decode', config, 8) == (1, 1, 8)
  assert default_mesh('decode', config.replace(heads=12, kv_heads=12), 8) == (1, 2, 4)
  assert default_mesh('prefill', config.replace(heads=25, kv_heads=25), 8) == (1, 8, 1)


def test_meshes_divide_rows_and_heads(gpt_j):
  found = meshes(gpt_j(batch=4))
  assert (1, 1, 8) in found and (2, 2, 2) in found and (1, 8, 1) not in found
  assert all(math.prod(mesh) == 8 for mesh in found) and len(set(found)) == len(found)
