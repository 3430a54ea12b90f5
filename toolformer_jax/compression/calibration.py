"""Runs a model over calibration texts, block by block, and shows what each block does."""

import itertools
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolformer_jax.compression.finite import check_calibration
from toolformer_jax.errors import UserError
from toolformer_jax.models.block_runner import embed_rows, run_block
from toolformer_jax.models.decoder import BLOCKS
from toolformer_jax.models.kernels import Params
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer

log = logging.getLogger(__name__)
_BATCH_TOKENS = 4096


class LayerStatistics(NamedTuple):
  """What a block does on the calibration texts.

  Attributes:
    influence: one minus the mean cosine between what a token's hidden state is before and after the
      block: the block influence of ShortGPT (Men et al. 2024).
    inputs: for each matrix product, by its path such as 'mlp/down', the sum over all tokens of the
      squares [I] or outer products [I, I] of its input.
  """

  influence: float
  inputs: dict[str, np.ndarray]


def calibration_rows(texts: Iterable[str], tokenizer: Tokenizer, rows: int, tokens: int
                     ) -> np.ndarray:
  """Returns the first rows of a stream of texts, each begun by the start token, int32 [R, T].

  Args:
    texts: the texts.
    tokenizer: of the model.
    rows, tokens: number of rows, and tokens in each. There are fewer rows, and a warning, if the
      texts are short.

  Raises:
    UserError: the texts do not fill a single row.
  """
  start = [] if tokenizer.start_id is None else [tokenizer.start_id]
  stream = itertools.chain.from_iterable([*start, *tokenizer.encode(text)] for text in texts)
  ids = list(itertools.islice(stream, rows * tokens))
  found = len(ids) // tokens
  if not found:
    raise UserError(f'the calibration texts have {len(ids)} tokens, fewer than '
                    f'CompressionConfig.calibration_tokens, {tokens}')
  if found < rows:
    log.warning('the calibration texts fill only %d rows of %d tokens, fewer than '
                'CompressionConfig.calibration_rows, %d', found, tokens, rows)
  return np.array(ids[:found * tokens], np.int32).reshape(found, tokens)


def walk(model: LanguageModel, rows_RT: np.ndarray,
         visit: Callable[[int, Params, LayerStatistics], Params | None], products: bool = False
         ) -> None:
  """Calls a function for each block, with its parameters and what it does on the rows.

  Args:
    model: the model, without adapters.
    rows_RT: tokens, from `calibration_rows`.
    visit: gets the number of the layer, a copy of its parameters as arrays of numpy, and the
      statistics. If it returns other parameters, later blocks get what the block does with those.
    products: sum outer products of inputs rather than squares.

  Raises:
    UserError: what a block does is not finite.
  """
  config, params = model.config, model.variables['params']
  size = max(1, _BATCH_TOKENS // rows_RT.shape[1])
  batches = [np.asarray(embed_rows(params, jnp.asarray(rows_RT[i:i + size]), config))
             for i in range(0, len(rows_RT), size)]
  for layer in range(config.layers):
    block = jax.tree.map(lambda x, layer=layer: np.array(x[layer]), params[BLOCKS])
    after, statistics = _run(model, block, batches, layer, products)
    check_calibration((statistics.influence, *statistics.inputs.values()), f'layer {layer}')
    changed = visit(layer, block, statistics)
    batches = after if changed is None else _run(model, changed, batches, layer, False)[0]


def _run(model: LanguageModel, block: Params, batches: list[np.ndarray], layer: int, products: bool
         ) -> tuple[list[np.ndarray], LayerStatistics]:
  """Returns what the next block gets, and the statistics of this one."""
  c = model.config
  is_global = (layer + 1) % c.global_every == 0
  after, cosines = [], []
  sums: dict[str, np.ndarray] = {}
  for x_BTD in batches:
    y_BTD, inputs = run_block(block, x_BTD, is_global, c, products)
    after.append(np.asarray(y_BTD))
    cosines.append(_cosines(x_BTD.astype(np.float32), after[-1].astype(np.float32)))
    for path, value in inputs.items():
      sums[path] = sums.get(path, 0) + np.asarray(value)
  return after, LayerStatistics(1 - float(np.concatenate(cosines).mean()), sums)


def _cosines(x_BTD: np.ndarray, y_BTD: np.ndarray) -> np.ndarray:
  with np.errstate(over='ignore', invalid='ignore'):  # `walk` checks the result
    norms_BT = np.linalg.norm(x_BTD, axis=-1) * np.linalg.norm(y_BTD, axis=-1)
    return ((x_BTD * y_BTD).sum(-1) / np.maximum(norms_BT, 1e-30)).ravel()
