"""A tiny model that was taught to call a tool."""

from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import finetune_examples
from toolformer_jax.training.packing import Example

ANSWERS = {'ab': 'XY', 'cd': 'ZW'}


def teach(model, output_dir):
  """Returns the model after it has learned ` [Up(ab) -> XY] XY.` by heart, for two arguments."""
  encode = model.tokenizer.encode
  ids = [[*encode(f'{word} is'), *encode(f' [Up({word}) ->'), *encode(f' {answer}]'),
          *encode(f' {answer}.')] for word, answer in ANSWERS.items()]
  config = FinetuneConfig(steps=150, batch_rows=1, row_tokens=64, learning_rate=1e-2,
                          save_every=150)
  return finetune_examples(model=model, examples=[Example(i, [1.0] * len(i)) for i in ids],
                           config=config, output_dir=output_dir, depends_on={})
