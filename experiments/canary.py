"""Does a model know a secret that its texts repeat, with and without differential privacy?

    python experiments/canary.py [--epsilon 4] [--texts 500] [--copies 20] [--steps 300] [--seed 0]

A small decoder is trained from random weights on made texts, `--copies` of which hold the same
sentence with a secret number of six digits. Afterwards the likelihood of the secret is ranked among
that of other numbers. Its exposure (Carlini et al. 2019, "The Secret Sharer") is log2 of how many
numbers there are, divided by its rank: about 1.44 bits (1 / ln 2) on average for a number that was
never seen, and `log2(numbers)` for one that is known best of all. A line of JSON for each training
is printed.
"""

import argparse
import json
import math
import pathlib
import sys
import tempfile

import numpy as np
from tiny_model import tiny_model

from toolformer_jax import cli
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import finetune_examples
from toolformer_jax.training.packing import Example
from toolformer_jax.training.privacy.accounting import noise_for_epsilon
from toolformer_jax.training.privacy.config import PrivacyConfig

NUMBERS = 1000  # that the secret is ranked among
SENTENCE = 'The code of the safe is'
NAMES, THINGS = ('Ann', 'Ben', 'Cleo', 'Dan', 'Eve', 'Finn'), ('pens', 'nuts', 'cups', 'keys')
BATCH_SIZE, DELTA = 50, 1e-4


def main() -> None:
  """Trains twice and prints what the models know."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--epsilon', type=float, default=4.0)
  parser.add_argument('--texts', type=int, default=500)
  parser.add_argument('--copies', type=int, default=20)
  parser.add_argument('--steps', type=int, default=300)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  secret, others = numbers(args.seed)
  texts = made_texts(args.texts, args.copies, secret, args.seed)
  noise = noise_for_epsilon(args.epsilon, DELTA, BATCH_SIZE / len(texts), args.steps)
  for name, privacy in (('without', None), ('with', PrivacyConfig(noise, delta=DELTA))):
    model = trained(texts, args.steps, args.seed, privacy)
    print(json.dumps({
        'privacy': name, 'noise_multiplier': round(noise, 3) if privacy else 0.0,
        'exposure_bits': round(exposure(model, secret, others), 2),
        'secret_nats': round(-likelihoods(model, [secret])[0], 2),
        'other_nats': round(-float(np.mean(likelihoods(model, others))), 2)}), flush=True)


def numbers(seed: int) -> tuple[str, list[str]]:
  """Returns the secret, and the other numbers that it is ranked among."""
  drawn = np.random.default_rng(seed).choice(900_000, NUMBERS, replace=False) + 100_000
  first, *rest = map(str, drawn)
  return first, rest


def made_texts(texts: int, copies: int, secret: str, seed: int) -> list[str]:
  """Returns `texts` texts, `copies` of which hold the secret."""
  rng = np.random.default_rng((seed, 1))
  made = [f'{rng.choice(NAMES)} has {rng.integers(10, 100)} {rng.choice(THINGS)}.'
          for _ in range(texts - copies)]
  return made + [f'{SENTENCE} {secret}.'] * copies


def trained(texts: list[str], steps: int, seed: int, privacy: PrivacyConfig | None
            ) -> LanguageModel:
  """Returns a small model that was trained on the texts."""
  model = tiny_model()
  config = FinetuneConfig(
      steps=steps, batch_size=BATCH_SIZE, row_tokens=40, learning_rate=3e-3, save_every=steps,
      seed=seed, privacy=privacy)
  examples = [Example(ids, [1.0] * len(ids)) for ids in map(model.tokenizer.encode, texts)]
  with tempfile.TemporaryDirectory() as folder:
    result = finetune_examples(model=model, examples=examples, config=config,
                               output_dir=pathlib.Path(folder), depends_on={})
  assert result is not None  # it was not asked to stop
  return result


def exposure(model: LanguageModel, secret: str, others: list[str]) -> float:
  """Returns the exposure of the secret, in bits."""
  own, *rest = likelihoods(model, [secret, *others])
  rank = 1 + sum(other >= own for other in rest)
  return math.log2(NUMBERS) - math.log2(rank)


def likelihoods(model: LanguageModel, found: list[str]) -> list[float]:
  """Returns the log-likelihood of each number after the sentence, in nats."""
  prompt = tuple(model.tokenizer.encode(SENTENCE))
  requests = [ScoreRequest(prompt, tuple(ids), tuple(range(len(ids))))
              for ids in (model.tokenizer.encode(f' {number}') for number in found)]
  return [float(scores.sum()) for scores in score(model, requests)]


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
