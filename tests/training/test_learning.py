"""The loop learns what the project is for: to use what a tool has answered."""

import dataclasses
import random

import jax
import numpy as np
import pytest

from toolformer_jax.annotation.records import AnnotatedDocument, Document, ScoredCall
from toolformer_jax.training.data import annotated_example
from toolformer_jax.training.finetune import finetune
from toolformer_jax.training.packing import pack
from toolformer_jax.training.settings import FinetuneSettings

SETTINGS = FinetuneSettings(
    steps=900, batch_rows=16, row_tokens=128, learning_rate=3e-3, beta2=0.98, schedule='cosine',
    final_rate=0.1, save_every=10_000)
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
  rows = pack(examples, model.tokenizer, 64, True)
  assert len(rows) == len(examples)
  logits = jax.jit(model.decoder.apply)(model.variables, rows.tokens_RT)[0]
  hits = np.asarray(jax.numpy.argmax(logits, -1) == rows.targets_RT)
  ends = (rows.segments_RT > 0).sum(1)  # the end-of-text token and the full stop come last
  return np.mean([hits[row, end - 2 - DIGITS:end - 2].all() for row, end in enumerate(ends)])


@pytest.mark.long
def test_results_of_tools_are_copied(make_model, tokenizer, tmp_path):
  model = make_model(embed_dim=64, head_dim=16, rotary_dim=16, mlp_dim=128)
  known, unknown = ([annotated_example(_record(number), tokenizer) for number in numbers]
                    for numbers in (range(4000), range(10_000, 10_200)))
  spelled = tokenizer.decode(known[0].ids)
  assert ' -> ' in spelled and spelled.count(spelled[-5:-1]) == 2
  assert _accuracy(model, unknown) < 0.05
  tuned = finetune(model=model, examples=known, settings=SETTINGS, output_dir=tmp_path,
                   configuration={}, versions={})
  assert _accuracy(tuned, unknown) > 0.95
  _check_it_is_the_call(tuned, unknown)


def _check_it_is_the_call(model, examples):
  """The texts alone, their calls taken out, are as random as before."""
  texts = [dataclasses.replace(_record(number), calls=()) for number in range(10_000, 10_200)]
  assert _accuracy(model, [annotated_example(text, model.tokenizer) for text in texts]) < 0.05
