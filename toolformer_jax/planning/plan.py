"""A plan: whether a step fits a TPU slice, its memory, and bounds of its speed."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.planning import hlo
from toolformer_jax.planning.compilation import Compiled, TooLarge, compile_program
from toolformer_jax.planning.programs import Program, Step, argument_bytes, program
from toolformer_jax.planning.roofline import Roofline, roofline
from toolformer_jax.planning.slices import GIB, Slice
from toolformer_jax.runtime.progress import still_working
from toolformer_jax.training.config import FinetuneConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
  """A step to plan.

  Attributes:
    model: name of the model.
    config: configuration of the decoder; its dtype is that of the computation.
    slice: the TPU slice.
    step, batch, length: see `programs.program`.
    mesh: sizes of the axes data, fsdp and tensor; one may be -1, for what the others leave.
    finetune: settings of the step 'train'.
  """

  model: str
  config: DecoderConfig
  slice: Slice
  step: Step
  batch: int
  length: int
  mesh: tuple[int, int, int]
  finetune: FinetuneConfig

  def replace(self, **changes: Any) -> 'Request':
    """Returns a copy with `changes`."""
    return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Fit:
  """Figures of a program that fits.

  Attributes:
    temporaries: bytes on each chip beside the arguments; new results and the code included.
    headroom: bytes of the usable memory that stay free.
    kernel: whether a TPU kernel computes the attention.
    collectives: communication between the chips in one run.
    bound: bounds of the speed.
  """

  temporaries: int
  headroom: int
  kernel: bool
  collectives: hlo.Collectives
  bound: Roofline


@dataclass(frozen=True)
class Plan:
  """The compiler's answer to a request.

  Attributes:
    request: the request, with all sizes of its mesh.
    arguments: bytes of the arguments on each chip: weights, state, cache, batch.
    compile_s: duration of the compilation, in seconds.
    useful_flops: floating-point operations of one run on all chips, see `models.flops`.
    fit: figures of a program that fits; None if it does not.
    reason: why it does not fit; '' if it does.
  """

  request: Request
  arguments: int
  compile_s: float
  useful_flops: int
  fit: Fit | None
  reason: str = ''

  @property
  def fits(self) -> bool:
    """Whether the program fits the memory."""
    return self.fit is not None

  def record(self) -> dict[str, Any]:
    """Returns the plan as JSON; sizes are bytes on each chip, times seconds."""
    request, where = self.request, self.request.slice
    record = {
        'model': request.model, 'step': request.step, 'batch': request.batch,
        'length': request.length, 'topology': where.name, 'slice': where.short_name,
        'chips': where.chips, 'mesh': list(request.mesh), 'dtype': request.config.dtype,
        'fits': self.fits, 'reason': self.reason, 'usable': where.usable_memory,
        'arguments': self.arguments, 'compile_s': round(self.compile_s, 1),
        'useful_flops': self.useful_flops}
    if self.fit is not None:
      sent = self.fit.collectives
      record |= {
          'temporaries': self.fit.temporaries, 'headroom': self.fit.headroom,
          'attention_kernel': self.fit.kernel,
          'collectives': {kind: {'count': count, 'bytes': sent.bytes[kind]}
                          for kind, count in sorted(sent.counts.items())},
          'unknown_loops': sent.unknown_loops, 'roofline': dataclasses.asdict(self.fit.bound)}
    return record


def default_mesh(step: Step, config: DecoderConfig, chips: int) -> tuple[int, int, int]:
  """Returns a mesh that splits the weights; for prefill and decode first along the heads."""
  tensor = math.gcd(chips, config.kv_heads) if step in ('prefill', 'decode') else 1
  return 1, chips // tensor, tensor


def make_plan(request: Request) -> Plan:
  """Compiles the step of a request and returns its plan.

  Raises:
    UserError: the mesh does not fit the slice, rows are longer than the model allows, libtpu is not
      installed, or the compiler refuses the program for another reason than memory.
  """
  positions = request.config.max_positions
  if request.length > positions:
    raise UserError(f'--length is {request.length}, but {request.model} has only {positions} '
                    'positions')
  mesh = mesh_on(request.slice.devices(), request)
  request = request.replace(mesh=tuple(mesh.shape.values()))
  step = program(request.step, request.config, mesh, request.batch, request.length,
                 request.finetune)
  what = f'compiling {request.step} of {request.model} for {request.slice.name}'
  log.info('%s; a large model takes some minutes', what)
  with still_working(what):
    compiled = compile_program(step.lower(mesh))
  return judge(request, step, compiled)


def judge(request: Request, step: Program, compiled: Compiled | TooLarge) -> Plan:
  """Returns the plan of a program that was compiled, or is too large to be compiled.

  The compiler only gives up if the temporaries alone are too large. The arguments have to fit
  beside them.
  """
  usable = request.slice.usable_memory
  if isinstance(compiled, TooLarge):
    arguments = argument_bytes(step.arguments)
    reason = f'{compiled.reason.rstrip(".")}; arguments are {arguments / GIB:.2f} GiB beside them'
    return Plan(request, arguments, compiled.seconds, step.useful_flops, None, reason)
  arguments, temporaries = compiled.arguments, compiled.results + compiled.temporaries
  headroom, fit, reason = usable - arguments - temporaries, None, ''
  if headroom < 0:
    reason = (f'{arguments / GIB:.2f} GiB of arguments and {temporaries / GIB:.2f} GiB of '
              f'temporaries are more than the {usable / GIB:.2f} GiB of a chip')
  else:
    sent = hlo.collectives(compiled.text)
    bound = roofline(
        chip=request.slice.chip, chips=request.slice.chips, tokens=step.tokens,
        useful_flops=step.useful_flops, flops=step.flops, traffic=step.traffic, collectives=sent)
    fit = Fit(temporaries, headroom, compiled.kernel, sent, bound)
  return Plan(request, arguments, compiled.seconds, step.useful_flops, fit, reason)


def mesh_on(devices: Sequence[jax.Device], request: Request) -> jax.sharding.Mesh:
  """Returns the mesh of a request.

  Raises:
    UserError: its sizes do not multiply to the number of chips.
  """
  try:
    return sharding.make_mesh(*request.mesh, devices=devices)
  except (ValueError, ZeroDivisionError) as error:
    sizes = ','.join(map(str, request.mesh))
    raise UserError(f'--mesh {sizes} does not fit {request.slice.name}: the product must be '
                    f'{len(devices)}') from error
