"""A tiny model that was taught to call a tool."""

import pytest

from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import finetune_examples
from toolformer_jax.training.packing import Example

ANSWERS = {'ab': 'XY', 'cd': 'ZW'}


@pytest.fixture(scope='session')
def taught(make_model, tmp_path_factory):
  """A model that has learned ` [Up(ab) -> XY] XY.` by heart, for two arguments."""
  model = make_model(embed_dim=64, mlp_dim=128, max_positions=1024)
  encode = model.tokenizer.encode
  ids = [[*encode(f'{word} is'), *encode(f' [Up({word}) ->'), *encode(f' {answer}]'),
          *encode(f' {answer}.')] for word, answer in ANSWERS.items()]
  settings = FinetuneConfig(steps=150, batch_rows=1, row_tokens=64, learning_rate=1e-2,
                              save_every=150)
  return finetune_examples(model=model, examples=[Example(i, [1.0] * len(i)) for i in ids],
                  config=settings, output_dir=tmp_path_factory.mktemp('taught'),
                  depends_on={})
