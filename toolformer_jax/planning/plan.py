"""A plan: whether a step fits a TPU slice, what it takes, and how fast it can be at most."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from toolformer_jax import sharding
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.planning import hlo
from toolformer_jax.planning.compilation import TooLarge, compile_program
from toolformer_jax.planning.programs import Program, Step, argument_bytes, program
from toolformer_jax.planning.roofline import Roofline, roofline
from toolformer_jax.planning.slices import Slice
from toolformer_jax.training.settings import FinetuneSettings

log = logging.getLogger(__name__)

# By default weights are split over the chips where rows are many, and heads where they are few.
DEFAULT_MESH = {'train': (1, -1, 1), 'score': (1, -1, 1), 'prefill': (1, 1, -1),
                'decode': (1, 1, -1)}


@dataclass(frozen=True)
class Request:
  """What is to be planned.

  Attributes:
    model: what it is called.
    config: of the model; its dtype is that of the computation.
    slice: the TPU.
    step, batch, length: see `programs.program`.
    mesh: sizes of the axes data, fsdp and tensor; one may be -1, what the others leave.
    finetune: of 'train'.
  """

  model: str
  config: DecoderConfig
  slice: Slice
  step: Step
  batch: int
  length: int
  mesh: tuple[int, int, int]
  finetune: FinetuneSettings

  def replace(self, **changes: Any) -> 'Request':
    """Returns a copy with `changes`."""
    return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Memory:
  """Bytes on each chip.

  Attributes:
    arguments: weights, state, cache, batch.
    temporaries: what is needed in between, results that are new and the code included.
    usable: what the compiler leaves to a program.
  """

  arguments: int
  temporaries: int
  usable: int

  @property
  def headroom(self) -> int:
    """What is left."""
    return self.usable - self.arguments - self.temporaries


@dataclass(frozen=True)
class Plan:
  """What the compiler says of a request.

  Attributes:
    request: what was asked, with the mesh as it is.
    fits: whether the program's memory is there.
    reason: why it is not, in the compiler's words; '' if it is.
    arguments: bytes on each chip before the step, whether it fits or not.
    memory: what it takes, if it fits.
    kernel: whether the attention is the TPU's kernel, if it fits.
    compile_s: how long the compiler took.
    collectives: what chips send each other in one run, if it fits.
    useful_flops: of one run on all chips.
    bound: how fast it can be at most, if it fits.
  """

  request: Request
  fits: bool
  reason: str
  arguments: int
  compile_s: float
  useful_flops: int
  memory: Memory | None = None
  kernel: bool | None = None
  collectives: hlo.Collectives | None = None
  bound: Roofline | None = None

  def record(self) -> dict[str, Any]:
    """Returns the plan as JSON; sizes are bytes on each chip, times seconds."""
    asked = self.request
    record = {
        'model': asked.model, 'step': asked.step, 'batch': asked.batch, 'length': asked.length,
        'topology': asked.slice.name, 'slice': asked.slice.short_name, 'chips': asked.slice.chips,
        'mesh': list(asked.mesh), 'dtype': asked.config.dtype, 'fits': self.fits,
        'reason': self.reason, 'arguments': self.arguments,
        'compile_s': round(self.compile_s, 1), 'useful_flops': self.useful_flops}
    if self.fits:
      record |= {
          'temporaries': self.memory.temporaries, 'usable': self.memory.usable,
          'headroom': self.memory.headroom, 'attention_kernel': self.kernel,
          'collectives': {kind: {'count': count, 'bytes': self.collectives.bytes[kind]}
                          for kind, count in sorted(self.collectives.counts.items())},
          'unknown_loops': self.collectives.unknown_loops,
          'roofline': dataclasses.asdict(self.bound)}
    return record


def make_plan(request: Request) -> Plan:
  """Compiles what was asked for, and reads the program.

  Raises:
    UserError: it can not be: the mesh is none of this slice, rows are longer than the model allows,
      libtpu is not there, or the compiler refuses the program for another reason than memory.
  """
  positions = request.config.max_positions
  if request.length > positions:
    raise UserError(f'--length is {request.length}, but {request.model} has only {positions} '
                    'positions')
  mesh = mesh_on(request.slice.devices(), request)
  request = request.replace(mesh=tuple(mesh.shape.values()))
  step = program(request.step, request.config, mesh, request.batch, request.length,
                 request.finetune)
  arguments = argument_bytes(step.arguments)
  log.info('compiling %s of %s for %s; a large model takes a minute or two', request.step,
           request.model, request.slice.name)
  compiled = compile_program(step.lower(mesh))
  if isinstance(compiled, TooLarge):
    return Plan(request, False, compiled.reason, arguments, compiled.seconds, step.useful_flops)
  memory = Memory(compiled.arguments, compiled.results + compiled.temporaries,
                  int(request.slice.usable_memory))
  sent = hlo.collectives(compiled.text)
  return Plan(request, True, '', arguments, compiled.seconds, step.useful_flops, memory,
              compiled.kernel, sent, _bound(request, step, sent))


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


def _bound(request: Request, step: Program, sent: hlo.Collectives) -> Roofline:
  return roofline(
      chip=request.slice.chip, chips=request.slice.chips, tokens=step.tokens,
      useful_flops=step.useful_flops, flops=step.flops, traffic=step.traffic, collectives=sent)
