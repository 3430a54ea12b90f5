"""Plans a step on a given mesh, or searches the fastest mesh and the largest batch that fits."""

import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterator

from toolformer_jax.errors import UserError, unknown
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.presets import CHECKPOINTS, PRESETS
from toolformer_jax.planning.plan import Plan, Request, default_mesh, make_plan
from toolformer_jax.planning.programs import Step
from toolformer_jax.planning.slices import Slice
from toolformer_jax.training.config import FinetuneConfig

log = logging.getLogger(__name__)

Planner = Callable[[Request], Plan]

# What lets the paper's model train in the memory of few chips; configs/tpu.gin binds the same.
TPU_FINETUNE = FinetuneConfig(remat_policy='full', first_moment='bfloat16')


def plan(
    model: DecoderConfig | str | os.PathLike[str], *, topology: str, step: Step, batch: int,
    length: int, mesh: tuple[int, int, int] | None = None, search: bool = False,
    config: FinetuneConfig = TPU_FINETUNE, dtype: str = 'bfloat16',
) -> Plan:
  """Computes whether a step of a model fits a TPU slice, and bounds of its speed.

  Compiles the program for TPUs, which need not be there; needs libtpu.

  Args:
    model: a name in `models.presets` such as 'gptj_6b', a checkpoint, or a decoder's configuration.
    topology: chips by shape or size, 'v5e:2x4' or 'v5e-8'.
    step: 'train', 'score', 'prefill' or 'decode'.
    batch: rows.
    length: tokens of a row.
    mesh: chips along the axes data, fsdp and tensor; by default one that splits the weights.
    search: look for the best mesh, unless it is given, and for the largest batch.
    config: settings of the step 'train'.
    dtype: dtype of the computation.

  Raises:
    UserError: there is no such slice or model, the mesh does not fit, or libtpu is missing.
  """
  name, decoder = ('model', model) if isinstance(model, DecoderConfig) else _named_decoder(model)
  decoder, where = decoder.replace(dtype=dtype), Slice.named(topology)
  request = Request(
      model=name, config=decoder, slice=where, step=step, batch=batch, length=length,
      mesh=mesh or default_mesh(step, decoder, where.chips), finetune=config)
  if search and mesh is None:
    return search_mesh(request, make_plan)
  return largest_batch(make_plan(request), make_plan) if search else make_plan(request)


def _named_decoder(model: str | os.PathLike[str]) -> tuple[str, DecoderConfig]:
  """Returns the name of a model and its decoder, without fetching weights where that can be."""
  # Imported here: most plans read no checkpoint, and the readers take long to import.
  from toolformer_jax.checkpoints.names import known_models
  from toolformer_jax.checkpoints.pretrained import pretrained_config
  name = str(model)
  preset = {checkpoint: preset for preset, checkpoint in CHECKPOINTS.items()}.get(name, name)
  if preset in PRESETS and isinstance(model, str):  # a path is no name
    return name, PRESETS[preset]
  if '/' in name or pathlib.Path(name).exists() or name in known_models():
    return name, pretrained_config(name)
  raise unknown('model', name, [*PRESETS, *known_models()])


def search_mesh(request: Request, planner: Planner) -> Plan:
  """Returns the plan of the largest batch on the best mesh.

  The best mesh is the one on which the batch of the request fits with the highest bound of tokens a
  second; of equal ones, the one with the most memory left. A batch that fits no mesh is halved
  until it does.
  """
  while True:
    plans = [_logged(planner(request.replace(mesh=mesh))) for mesh in meshes(request)]
    if fitting := [(plan.fit, plan) for plan in plans if plan.fit is not None]:
      _, best = max(fitting, key=lambda pair: (pair[0].bound.tokens_per_s, pair[0].headroom))
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
                    f'{request.config.heads} heads; choose another --batch, or give --mesh')
  return found


def largest_batch(plan: Plan, planner: Planner) -> Plan:
  """Returns the plan of the largest batch that fits the mesh of `plan`, by bisection.

  Batches are multiples of the mesh's data and fsdp axes. If not even the smallest batch fits,
  `plan` itself is returned.
  """
  request = plan.request
  step = math.prod(request.mesh[:2])
  def at(parts: int) -> Plan:
    return _logged(planner(request.replace(batch=parts * step)))
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


def _logged(plan: Plan) -> Plan:
  """Logs the outcome of one compilation."""
  asked = plan.request
  result = (f'fits, at most {plan.fit.bound.tokens_per_s:,.0f} tokens a second' if plan.fit
            else 'does not fit')
  log.info('batch %d on mesh %d,%d,%d: %s', asked.batch, *asked.mesh, result)
  return plan
