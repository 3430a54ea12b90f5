"""Compiles a program for devices that need not be there, and reads the compiler's figures."""

import re
import time
from dataclasses import dataclass

import jax

from toolformer_jax.errors import UserError

_KERNEL = 'tpu_custom_call'  # a Pallas kernel in a TPU's program
_TOO_LARGE = re.compile(r'RESOURCE_EXHAUSTED: *(.+)', re.DOTALL)


@dataclass(frozen=True)
class Compiled:
  """A compiled program; sizes are bytes on each chip.

  Attributes:
    seconds: duration of the compilation.
    arguments: size of the arguments: weights, state, cache, batch.
    results: size of the results that do not take the place of donated arguments.
    temporaries: size of temporary buffers and of the code.
    kernel: whether the program contains a Pallas kernel.
    text: the program in HLO.
  """

  seconds: float
  arguments: int
  results: int
  temporaries: int
  kernel: bool
  text: str


@dataclass(frozen=True)
class TooLarge:
  """The program needs more memory than there is.

  Attributes:
    seconds: duration until the compiler gave up.
    reason: the compiler's message.
  """

  seconds: float
  reason: str


def compile_program(lowered: jax.stages.Lowered) -> Compiled | TooLarge:
  """Compiles a program.

  Raises:
    UserError: the compiler refuses the program for another reason than memory.
  """
  start = time.monotonic()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    seconds = time.monotonic() - start
    if match := _TOO_LARGE.search(str(error)):
      return TooLarge(seconds, _first_sentences(match[1]))
    raise UserError(f'the compiler refuses this program: {_first_sentences(str(error))}') from error
  seconds, text, sizes = time.monotonic() - start, compiled.as_text(), compiled.memory_analysis()
  if text is None or sizes is None:
    raise UserError('this compiler does not say what memory a program needs; install the libtpu of '
                    'setup.py')
  return Compiled(
      seconds, sizes.argument_size_in_bytes,
      sizes.output_size_in_bytes - sizes.alias_size_in_bytes,
      sizes.temp_size_in_bytes + sizes.generated_code_size_in_bytes, _KERNEL in text, text)


def _first_sentences(message: str) -> str:
  """Returns the first paragraph of a message."""
  return ' '.join(message.partition('\n\n')[0].split())[:400]
