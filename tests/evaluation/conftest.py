"""A model that has learned three word problems by heart, one of them with a call."""

import pytest

from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import finetune_examples
from toolformer_jax.training.packing import Example

# What SVAMP.json has, and what the model has learned to go on with.
PROBLEMS = [
    ({'ID': 'c1', 'Body': 'One 40, two 2.', 'Question': 'Sum?', 'Answer': 42.0},
     (' [Calculator(40 + 2) ->', ' 42]', ' 42.')),
    ({'ID': 'c2', 'Body': 'Xi has 7.', 'Question': 'How many?', 'Answer': 7.0}, (' 7.',)),
    ({'ID': 'c3', 'Body': 'Yo has 9.', 'Question': 'How many?', 'Answer': 9.0}, (' 8.',))]


@pytest.fixture(scope='session')
def taught(make_model, tmp_path_factory):
  """The checkpoint of that model."""
  model = make_model(embed_dim=64, mlp_dim=128, max_positions=1024)
  def example(problem, pieces):
    prompt = f'{problem["Body"]} {problem["Question"]} The answer is'
    ids = [token for piece in (prompt, *pieces) for token in model.tokenizer.encode(piece)]
    return Example(ids, [1.0] * len(ids))
  settings = FinetuneConfig(steps=150, batch_rows=1, row_tokens=64, learning_rate=1e-2,
                              save_every=150)
  path = tmp_path_factory.mktemp('taught')
  finetune_examples(model=model, examples=[example(*each) for each in PROBLEMS], config=settings,
           output_dir=path, depends_on={})
  return str(path)
