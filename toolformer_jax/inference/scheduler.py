"""What loops on the host share that keep the rows of a batch busy: columns, and smaller batches."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from toolformer_jax.models.language_model import LanguageModel

Row = TypeVar('Row')


def column(model: LanguageModel, rows: Sequence[Row | None], value: Callable[[Row], Any],
           dtype: Any = np.int32) -> jax.Array:
  """Returns `value` of each row as an array [B, ...] on the model's mesh.

  `value` must also accept None, the row without work, if it does not return a scalar; for scalars
  such a row has 0.
  """
  values = [0 if row is None else value(row) for row in rows]
  return model.put_batch(np.array(values, dtype))


def busy_first(busy: Sequence[bool], size: int) -> list[int]:
  """Returns the indices of `size` rows to keep: those with work, then as many others."""
  return sorted(range(len(busy)), key=lambda row: not busy[row])[:size]
