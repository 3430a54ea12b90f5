"""What `fuzz.py` feeds with damaged inputs: a way to make them, and a way to run them."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from toolformer_jax.errors import UserError

ACCEPTED, REFUSED = 'accepted', 'refused'


class Target(NamedTuple):
  """How an input is made, and what is done with it: `run` raises only if the package does."""

  make: Callable[[random.Random], Any]
  run: Callable[[Any], str]


def refusable(work: Callable[[], Any], *refusals: type[Exception]) -> str:
  """Does `work`; tells whether it raised a UserError or one of `refusals`."""
  try:
    work()
  except UserError as error:
    if not str(error).strip():
      raise AssertionError('an error without a message') from error
    return REFUSED
  except refusals:
    return REFUSED
  return ACCEPTED
