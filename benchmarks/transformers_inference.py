"""What a competent user would write with Hugging Face transformers, for all workloads.

Batched, sorted by length, padded on the left, with a cache where one helps, the logits of needed
tokens only, under `torch.inference_mode`.
"""

import copy
import logging
import os
import pathlib
from collections.abc import Callable, Collection

import numpy as np
import torch
import transformers

from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.checkpoints.families.registry import write_config
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.data import catalogue as fetch
from toolformer_jax.models.config import DecoderConfig

GPU = torch.cuda.is_available()
DEVICE = torch.device('cuda' if GPU else 'cpu')
if GPU:
  torch.set_float32_matmul_precision('high')  # products of float32 by TF32, as XLA has them


def random_model(config: DecoderConfig, dtype: torch.dtype = torch.float32
                 ) -> transformers.PreTrainedModel:
  """Returns a model of that shape with random weights, no dropout, on the GPU if there is one."""
  off = dict.fromkeys(('resid_pdrop', 'embd_pdrop', 'attn_pdrop'), 0.0)
  theirs = transformers.AutoConfig.for_model(**write_config(config), **off)
  with DEVICE:
    return transformers.AutoModelForCausalLM.from_config(theirs, dtype=dtype)


class RandomModel:
  """What engines do all day, by a model with random weights."""

  def __init__(self, config: DecoderConfig, dtype: str):
    """Makes the model."""
    self._model = random_model(config, getattr(torch, dtype)).eval()

  def scoring(self, ids: np.ndarray) -> Callable[[], None]:
    """Returns what computes the log-probability of every token of the rows `ids`."""
    tokens = torch.tensor(ids, device=DEVICE).long()
    @torch.inference_mode()
    def step() -> None:
      logits = self._model(tokens, use_cache=False).logits.float()
      torch.nn.functional.cross_entropy(
          logits.flatten(0, 1), tokens.roll(-1, 1).flatten(), reduction='none').cpu()
    return step

  def prefilling(self, ids: np.ndarray, prompt: int) -> Callable[[], None]:
    """Returns what reads documents behind a prompt, and tells of a token how likely it is there."""
    tokens = torch.tensor(ids, device=DEVICE).long()
    shared = self._filled(torch.ones(1, prompt, dtype=torch.long, device=DEVICE))
    @torch.inference_mode()
    def step() -> None:
      cache = copy.deepcopy(shared)
      cache.batch_repeat_interleave(len(ids))
      logits = self._model(tokens, past_key_values=cache).logits.float()
      (logits[..., 0] - torch.logsumexp(logits, -1)).cpu()
    return step

  def decoding(self, ids: np.ndarray, steps: int) -> Callable[[], None]:
    """Returns what decodes more tokens of the rows `ids`, and takes them back."""
    cache = self._filled(torch.tensor(ids, device=DEVICE).long())
    @torch.inference_mode()
    def step() -> None:
      last = torch.ones(len(ids), 1, dtype=torch.long, device=DEVICE)
      for _ in range(steps):
        last = self._model(last, past_key_values=cache).logits[:, -1:].argmax(-1)
      last.cpu()
      cache.crop(-steps)
    return step

  @torch.inference_mode()
  def _filled(self, tokens: torch.Tensor) -> transformers.Cache:
    """Returns the cache of `tokens`; what it took to fill it does not count as memory."""
    cache = self._model(tokens, logits_to_keep=1, use_cache=True).past_key_values
    if GPU:
      torch.cuda.reset_peak_memory_stats()
    return cache


class Transformers:
  """SmolLM2-135M-Instruct in transformers, from the same file, or what was exported to a folder.

  Attributes:
    tokenizer: ours, of SmolLM2-135M, so that both sides see the same ids.
    config: its sizes; what was exported has the same.
    model: theirs.
  """

  def __init__(self, dtype: str, exported: pathlib.Path | None = None):
    """Loads the model."""
    logging.getLogger('transformers').setLevel(logging.ERROR)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    file = pathlib.Path(fetch.fetch('smollm2-135m'))
    ours = GgufFile(file)
    self.tokenizer, self.config = ours.tokenizer(), ours.read_config()[1]
    source = {'gguf_file': file.name} if exported is None else {}
    self.model = transformers.AutoModelForCausalLM.from_pretrained(
        exported or file.parent, **source, dtype=getattr(torch, dtype)).eval()

  @torch.inference_mode()
  def last_logprobs(self, sequences: list[list[int]], kept: list[int], batch_rows: int
                    ) -> list[list[float]]:
    """Returns the log-probabilities of the last `kept[i]` tokens of each sequence."""
    # Those of which few are wanted by themselves: a batch keeps as many logits as its neediest row.
    few = min(kept)
    order = sorted(range(len(sequences)), key=lambda i: (kept[i] > few, -len(sequences[i])))
    result: list[list[float]] = [[] for _ in sequences]
    for first in range(0, len(order), batch_rows):
      rows = order[first:first + batch_rows]
      tokens, mask = self._pad([sequences[i] for i in rows])
      keep = max(kept[i] for i in rows) + 1
      logits = self.model(tokens, attention_mask=mask, logits_to_keep=keep, use_cache=False).logits
      logprobs = torch.log_softmax(logits[:, :-1].float(), -1)
      wanted = logprobs.gather(-1, tokens[:, 1 - keep:, None])[..., 0]
      for row, i in enumerate(rows):
        result[i] = wanted[row, wanted.shape[1] - kept[i]:].tolist()
    return result

  @torch.inference_mode()
  def start_logprobs(self, shared: transformers.Cache, tokens: list[int], token_id: int,
                     kept: int
                     ) -> tuple[torch.Tensor, transformers.Cache]:
    """Returns log p(token_id) after each of the last `kept` of `tokens`, and their cache.

    They follow what is in `shared`.
    """
    cache = copy.deepcopy(shared)
    logits = self.model(torch.tensor([tokens]), past_key_values=cache, logits_to_keep=kept).logits
    return torch.log_softmax(logits[0].float(), -1)[:, token_id], cache

  @torch.inference_mode()
  def prefill(self, tokens: list[int]) -> transformers.Cache:
    """Returns the cache of `tokens`."""
    return self.model(torch.tensor([tokens]), logits_to_keep=1).past_key_values

  @torch.inference_mode()
  def continuations(self, cache: transformers.Cache, visible: int, tokens: list[int], samples: int,
                    max_tokens: int, temperature: float, stop: list[int]
                    ) -> list[list[int]]:
    """Samples continuations of the first `visible` tokens of `cache` and `tokens`, in one batch."""
    cache = copy.deepcopy(cache)
    if visible < cache.get_seq_length():
      cache.crop(visible - cache.get_seq_length())
    cache.batch_repeat_interleave(samples)
    ids = torch.tensor([[0] * visible + tokens] * samples)
    out = self.model.generate(
        ids, attention_mask=torch.ones_like(ids), past_key_values=cache,
        do_sample=temperature > 0, temperature=temperature or None, top_k=0,
        max_new_tokens=max_tokens, eos_token_id=stop, pad_token_id=self.tokenizer.eos_id)
    return out[:, ids.shape[1]:].tolist()

  @torch.inference_mode()
  def generate(self, prompts: list[list[int]], max_tokens: int, batch_rows: int,
               end_ids: Collection[int]) -> list[list[int]]:
    """Returns greedy continuations up to the first of `end_ids`, in batches sorted by length.

    Without `end_ids` each has `max_tokens`.
    """
    made: list[list[int]] = []
    order = sorted(prompts, key=lambda prompt: -len(prompt))
    for first in range(0, len(order), batch_rows):
      tokens, mask = self._pad(order[first:first + batch_rows])
      out = self.model.generate(
          tokens, attention_mask=mask, do_sample=False, max_new_tokens=max_tokens,
          min_new_tokens=None if end_ids else max_tokens, eos_token_id=list(end_ids) or None,
          pad_token_id=self.tokenizer.eos_id)
      for row in out[:, tokens.shape[1]:].tolist():
        ends = [i for i, token in enumerate(row) if token in end_ids]
        made.append(row[:ends[0] if ends else None])
    return made

  def _pad(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(map(len, rows))
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return tokens, mask


class CallSampler:
  """Samples calls to the calculator; the prompt is read once, and each text once after it."""

  def __init__(self, model: Transformers, k: int, m: int, max_tokens: int, temperature: float):
    """Reads the prompt."""
    tokenizer = model.tokenizer
    self._model, self._k, self._m = model, k, m
    self._max_tokens, self._temperature = max_tokens, temperature
    self._prompt = [tokenizer.start_id,
                    *tokenizer.encode(CALCULATOR.text_before_input(DEFAULT_SYNTAX))]
    self._between = tokenizer.encode(CALCULATOR.text_before_output())
    self._opening = tokenizer.encode(f'{DEFAULT_SYNTAX.start}Calculator(')
    self._shared = model.prefill(self._prompt)
    self._stop = [i for i, spelled in enumerate(tokenizer.token_bytes)
                  if {*spelled} & {*b']\n'}]

  def likeliest(self, ids: list[int]) -> tuple[list[int], transformers.Cache]:
    """Returns the k positions of a text where a call is most probable, and the text's cache."""
    logprobs, cache = self._model.start_logprobs(
        self._shared, [*ids, *self._between, *ids], self._opening[0], len(ids) + 1)
    return logprobs[:-1].topk(min(self._k, len(ids))).indices.tolist(), cache

  def samples(self, ids: list[int], cache: transformers.Cache, position: int) -> list[list[int]]:
    """Returns m continuations of the beginning of a call at a position of a text."""
    visible = len(self._prompt) + len(ids) + len(self._between) + position
    return self._model.continuations(cache, visible, self._opening, self._m, self._max_tokens,
                                     self._temperature, self._stop)
