"""What transformers and torch say of the model that the tests use; also records golden numbers.

    .venv/bin/python tests/parity/reference.py

writes tests/golden/smollm2_135m.json, which `make test` compares with where torch is not at hand.
"""

import hashlib
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from toolformer_jax.data.catalogue import fetch
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.records import Document

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'smollm2_135m.json'
TEXTS, GREEDY_TEXTS, GREEDY_TOKENS = 20, 3, 64
MAX_WORDS = 80


def texts() -> list[Document]:
  """Returns paragraphs of Wikipedia from all over the sample, the same ones everywhere."""
  short = [d for d in read_corpus('wikipedia-sample') if len(d.text.split()) <= MAX_WORDS]
  return sorted(short, key=lambda d: hashlib.sha256(d.text.encode()).digest())[:TEXTS]


def their_logprobs(model, ids: Sequence[int]) -> np.ndarray:
  """Returns log p(ids[j] | ids[:j]) for j from 1 on, of a model of transformers."""
  import torch
  with torch.inference_mode():
    logits = model(torch.tensor([ids])).logits[0, :-1].double()
  return torch.log_softmax(logits, -1)[range(len(ids) - 1), ids[1:]].numpy()


class Transformers:
  """The model as transformers loads it from the same GGUF file, in float32."""

  def __init__(self, path: pathlib.Path):
    import torch
    import transformers
    where = {'gguf_file': path.name}
    self._torch = torch
    self.model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, dtype=torch.float32, **where)
    self.tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **where)

  def encode(self, text: str) -> list[int]:
    """Returns ids without special tokens."""
    return self.tokenizer.encode(text, add_special_tokens=False)

  def logprobs(self, ids: list[int]) -> np.ndarray:
    """Returns log p(ids[j] | ids[:j]) for j from 1 on."""
    return their_logprobs(self.model, ids)

  def greedy(self, ids: list[int], tokens: int) -> list[int]:
    """Returns the `tokens` likeliest next ids, one after the other; end tokens do not end it."""
    with self._torch.inference_mode():
      out = self.model.generate(
          self._torch.tensor([ids]), do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens,
          eos_token_id=None, pad_token_id=0)
    return out[0, len(ids):].tolist()


def record() -> None:
  """Writes the golden numbers."""
  reference = Transformers(fetch('smollm2-135m'))
  start = reference.tokenizer.bos_token_id
  golden = []
  for i, document in enumerate(texts()):
    ids = [start, *reference.encode(document.text)]
    entry = {'sha256': hashlib.sha256(document.text.encode()).hexdigest(), 'ids': len(ids) - 1,
             'logprobs': [round(float(x), 5) for x in reference.logprobs(ids)]}
    if i < GREEDY_TEXTS:
      entry['greedy'] = reference.greedy(ids[:20], GREEDY_TOKENS)
    golden.append(entry)
  GOLDEN.parent.mkdir(exist_ok=True)
  GOLDEN.write_text('[' + ',\n'.join(json.dumps(entry) for entry in golden) + ']\n', 'utf-8')


if __name__ == '__main__':
  record()
