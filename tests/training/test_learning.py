"""Training teaches a model to use the results of tools."""

import dataclasses
import random

import jax
import numpy as np
import pytest

from toolformer_jax import sharding
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.examples import annotated_example
from toolformer_jax.training.finetune import finetune_examples
from toolformer_jax.training.packing import pack

SETTINGS = FinetuneConfig(
    steps=1500, batch_rows=16, row_tokens=128, learning_rate=3e-3, beta2=0.99, schedule='cosine',
    final_rate=0.1, mask_results=True, save_every=10_000)
DIGITS = 4


def _record(number: int) -> AnnotatedDocument:
  """Returns a text that states a random number, and a call before it whose result is the number."""
  draw = random.Random(number)
  name = ''.join(draw.choices('abcdefghijklmnopqrstuvwxyz', k=3))
  result = ''.join(draw.choices('0123456789', k=DIGITS))
  call = ScoredCall(str(number), 'Lookup', name, len(name) + 3, 0.5, result)
  return AnnotatedDocument(Document(str(number), f'{name} is {result}.'), (call,))


def _accuracy(model, examples):
  """Returns how many of the numbers after a result are predicted, all digits of them."""
  rows = jax.tree.map(lambda *parts: np.concatenate(parts),
                      *(pack([example], model.tokenizer, 64, True) for example in examples))
  logits = jax.jit(model.decoder.apply)(model.variables, rows.input_tokens_RT)[0]
  hits = np.asarray(jax.numpy.argmax(logits, -1) == rows.target_tokens_RT)
  ends = (rows.segment_ids_RT > 0).sum(1)  # the end-of-text token and the full stop come last
  return np.mean([hits[row, end - 2 - DIGITS:end - 2].all() for row, end in enumerate(ends)])


@pytest.fixture
def model(tokenizer):
  """An untrained model with the usual initial values."""
  config = DecoderConfig(
      vocab_size=tokenizer.vocab_size, layers=2, embed_dim=64, heads=4, kv_heads=4, head_dim=16,
      mlp_dim=128, max_positions=128, rotary_dim=16)
  random = Decoder(config).init(jax.random.key(0), np.zeros((1, 2), np.int32))
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  return LanguageModel.from_variables(config, sharding.unbox(random), tokenizer, mesh)


@pytest.mark.long
def test_results_of_tools_are_copied(model, tokenizer, tmp_path):
  known, unknown = (
      [annotated_example(_record(number), tokenizer, mask_results=SETTINGS.mask_results)
       for number in numbers] for numbers in (range(4000), range(10_000, 10_200)))
  assert tokenizer.decode(unknown[0].token_ids).count(unknown_result := _result(10_000)) == 2
  assert unknown_result not in tokenizer.decode(unknown[1].token_ids)
  assert _accuracy(model, unknown) < 0.05
  tuned = finetune_examples(model=model, examples=known, config=SETTINGS, output_dir=tmp_path,
                   depends_on={})
  assert _accuracy(tuned, unknown) > 0.95
  # Without the calls the numbers are as random as ever.
  alone = [dataclasses.replace(_record(number), calls=()) for number in range(10_000, 10_200)]
  assert _accuracy(tuned, [annotated_example(text, tokenizer) for text in alone]) < 0.05


def _result(number: int) -> str:
  return _record(number).calls[0].result
