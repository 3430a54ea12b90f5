"""Streams: the batches of a step do not depend on where a run starts, nor on what was logged."""

import itertools

import numpy as np
import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.input_pipeline import batch_picks
from toolformer_jax.training.packing import Example, Sequences, pack, segments_of
from toolformer_jax.training.stream import StreamedBlocks


class _Stream:
  """Examples 1, 2, ..., each its number repeated; remembers where it was opened."""

  def __init__(self):
    self.opened = []

  def read(self, start):
    self.opened.append(start)
    return (Example([1 + i % 250] * (2 + i % 5), [1.0] * (2 + i % 5))
            for i in itertools.count(start))


def _blocks(tokenizer, log, packed, stream=None):
  def items_of(examples):
    return (pack(examples, tokenizer, 8, False) if packed
            else Sequences(segments_of(examples, tokenizer, 8, False), 8))
  return StreamedBlocks((stream or _Stream()).read, 10, items_of, log)


def _batches(blocks, start, count, batch=7):
  picks = batch_picks(blocks, batch, 0, start)
  return [blocks.rows(chosen) for chosen in itertools.islice(picks, count)]


@pytest.mark.parametrize('packed', [True, False])
@pytest.mark.parametrize('keep_log', [True, False])
def test_a_resumed_stream_has_the_same_batches(tokenizer, tmp_path, packed, keep_log):
  whole = _batches(_blocks(tokenizer, tmp_path / 'whole.json', packed), 0, 12)
  log, stream = tmp_path / 'log.json', _Stream()
  _batches(_blocks(tokenizer, log, packed), 0, 9)
  if not keep_log:
    log.write_text('{"items": [3')  # what a full disk may leave
  for one, other in zip(_batches(_blocks(tokenizer, log, packed, stream), 9, 3), whole[9:],
                        strict=True):
    for field in ('input_tokens_RT', 'target_tokens_RT', 'segment_ids_RT', 'loss_weights_RT'):
      np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
  assert (stream.opened[0] > 0) == keep_log and len(stream.opened) == 1  # the rest is read on


def test_every_text_of_a_block_is_learned_once(tokenizer, tmp_path):
  blocks = _blocks(tokenizer, tmp_path / 'log.json', packed=False)
  rows = _batches(blocks, 0, 10, batch=3)  # 30 sequences: three blocks of ten
  learned = np.concatenate([batch.target_tokens_RT[batch.loss_weights_RT > 0] for batch in rows])
  expected = np.concatenate([[1 + i] * (2 + i % 5) for i in range(30)])
  assert sorted(learned.tolist()) == sorted(expected.tolist())


def test_a_stream_that_ends_says_so(tokenizer, tmp_path):
  def items_of(examples):
    return pack(examples, tokenizer, 8, False)
  blocks = StreamedBlocks(lambda start: iter(()), 10, items_of, tmp_path / 'log.json')
  with pytest.raises(UserError, match='the stream ends before example 0, or is empty'):
    blocks.size(0)


def test_the_shape_of_batches_does_not_depend_on_the_start(tokenizer, tmp_path, make_model):
  log, config, mesh = tmp_path / 'log.json', FinetuneConfig(batch_size=7), make_model().mesh
  first, stream = _blocks(tokenizer, log, packed=False), _Stream()
  first.set_row_multiple(config, mesh)
  again = _blocks(tokenizer, log, packed=False, stream=stream)
  again.set_row_multiple(config, mesh)
  assert again.row_multiple == first.row_multiple > 1 and not stream.opened


