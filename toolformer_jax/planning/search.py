"""Looks for the mesh on which a step can be fastest, and for the largest batch that fits there."""

import logging
import math
from collections.abc import Callable, Iterator

from toolformer_jax.errors import UserError
from toolformer_jax.planning.plan import Plan, Request

log = logging.getLogger(__name__)

Planner = Callable[[Request], Plan]


def search_mesh(request: Request, planner: Planner) -> Plan:
  """Returns the plan of the largest batch on the best mesh.

  The best mesh is the one on which the batch that was asked for fits and its bound is the highest;
  of equal ones, that with the most memory left. A batch that fits no mesh is halved until it does.
  """
  while True:
    plans = [_told(planner(request.replace(mesh=mesh))) for mesh in meshes(request)]
    if fitting := [plan for plan in plans if plan.fits]:
      best = max(fitting, key=lambda plan: (plan.fit.bound.tokens_per_s, plan.fit.headroom))
      return largest_batch(best, planner)
    if request.batch == 1:
      return plans[0]
    request = request.replace(batch=request.batch // 2)


def meshes(request: Request) -> list[tuple[int, int, int]]:
  """Returns the meshes of a slice that divide the batch's rows and the model's heads.

  Raises:
    UserError: there is none.
  """
  found = [mesh for mesh in _factors(request.slice.chips)
           if request.batch % (mesh[0] * mesh[1]) == 0 and request.config.heads % mesh[2] == 0]
  if not found:
    raise UserError(f'no mesh of {request.slice.chips} chips divides {request.batch} rows and '
                    f'{request.config.heads} heads; choose another --batch, or say --mesh')
  return found


def largest_batch(plan: Plan, planner: Planner) -> Plan:
  """Returns the plan of the largest batch that fits the mesh of `plan`, by bisection.

  Batches are multiples of the rows that the mesh divides. The plan that is given is returned when
  not even the smallest fits.
  """
  request = plan.request
  step = math.prod(request.mesh[:2])
  def at(parts):
    return _told(planner(request.replace(batch=parts * step)))
  parts = max(1, request.batch // step)
  if plan.fits:
    low, high = parts, 2 * parts
    while (found := at(high)).fits:
      plan, low, high = found, high, 2 * high
  else:
    low, high = 0, parts
  while high - low > 1:
    middle = (low + high) // 2
    found = at(middle)
    if found.fits:
      plan, low = found, middle
    else:
      high = middle
  return plan


def _factors(chips: int) -> Iterator[tuple[int, int, int]]:
  """Yields all sizes of three axes that multiply to `chips`."""
  for data in range(1, chips + 1):
    for fsdp in range(1, chips // data + 1):
      if chips % (data * fsdp) == 0:
        yield data, fsdp, chips // (data * fsdp)


def _told(plan: Plan) -> Plan:
  """Logs what came out of one compilation."""
  asked = plan.request
  result = (f'fits, at most {plan.fit.bound.tokens_per_s:,.0f} tokens a second' if plan.fits
            else 'does not fit')
  log.info('batch %d on mesh %d,%d,%d: %s', asked.batch, *asked.mesh, result)
  return plan
