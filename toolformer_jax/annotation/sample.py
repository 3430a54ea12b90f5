"""Step 1: where might a call help, and which (paper, section 2, "Sampling API Calls")."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.annotation.prompts import Prompt
from toolformer_jax.calls import Call, CallSyntax
from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.records import Candidate, Document
from toolformer_jax.errors import UserError
from toolformer_jax.inference import branch_sampling as sampling
from toolformer_jax.inference.shared_prefix import prefill_documents, prefill_prompt
from toolformer_jax.models.language_model import LanguageModel

_DOCUMENTS = 32  # computed in one batch: enough branches to keep all rows busy


def check_fits(model: LanguageModel, prompt: Prompt, settings: AnnotationConfig,
               syntax: CallSyntax) -> None:
  """Checks before any work that the model can sample calls from `prompt`.

  Raises:
    UserError: the start of a call is no single token, or the model has too few positions.
  """
  encode = model.tokenizer.encode
  model.tokenizer.single_id(syntax.start)
  prompt_tokens = len(encode(prompt.before(syntax))) + len(encode(prompt.between()))
  text, call = settings.max_text_tokens, settings.max_call_tokens
  start = model.tokenizer.start_id is not None
  needed = start + prompt_tokens + 2 * text + len(encode(opening(prompt, settings, syntax))) + call
  if needed > model.config.max_positions:
    raise UserError(
        f'the prompt of {prompt.tool}, twice a text of {text} tokens and a call of {call} make '
        f'{needed} tokens, and the model has {model.config.max_positions} positions; make '
        'AnnotationConfig.max_text_tokens smaller')


def opening(prompt: Prompt, settings: AnnotationConfig, syntax: CallSyntax) -> str:
  """Returns the text that every sample begins with."""
  return syntax.start + (prompt.tool if settings.force_name else '')


class CallSampler:
  """Samples calls to one tool; holds the tool's prompt, computed once."""

  def __init__(self, *, model: LanguageModel, prompt: Prompt, tool: ToolConfig,
               settings: AnnotationConfig, syntax: CallSyntax):
    """Computes the prompt's keys and values; see the settings for the rest."""
    self._model, self._prompt, self._tool = model, prompt, tool
    self._settings, self._syntax = settings, syntax
    encode = model.tokenizer.encode
    self._shared = prefill_prompt(model, encode(prompt.before(syntax)))
    self._between = encode(prompt.between())
    self._start_id = model.tokenizer.single_id(syntax.start)
    self._opening_text = opening(prompt, settings, syntax)
    self._branch_config = sampling.BranchConfig(
        opening=tuple(encode(self._opening_text)), first_allowed_V=self._first_allowed(),
        max_tokens=settings.max_call_tokens, temperature=settings.temperature,
        top_p=settings.top_p,
        is_finished=lambda text: '\n' in text or self._parse(text) is not None)

  def __call__(self, documents: Sequence[Document]) -> tuple[list[Candidate], Counter]:
    """Returns the candidates of `documents`, and counts of documents, positions and samples.

    Documents are computed in batches of similar length, in an order that depends on them alone.
    """
    lengths = {d.id: len(self._model.tokenizer.encode(d.text)) for d in documents}
    by_length = sorted(documents, key=lambda d: (lengths[d.id], d.id))
    candidates, counts = [], Counter(documents=len(documents))
    for first in range(0, len(by_length), _DOCUMENTS):
      found, batch_counts = self._sample_batch(by_length[first:first + _DOCUMENTS])
      candidates += found
      counts += batch_counts
    order = {d.id: i for i, d in enumerate(documents)}
    candidates.sort(key=lambda c: (order[c.document_id], c.position))
    return candidates, counts

  def _sample_batch(self, documents: Sequence[Document]) -> tuple[list[Candidate], Counter]:
    texts = [self._model.tokenizer.encode(d.text) for d in documents]
    # The text as the input, then again as the output in which calls may start.
    tokens = [[*ids, *self._between, *ids] for ids in texts]
    starts = [len(ids) + len(self._between) for ids in texts]
    watched = [range(start, start + len(ids)) for start, ids in zip(starts, texts, strict=True)]
    prefilled = prefill_documents(
        self._model, self._shared, tokens, self._start_id, watched)
    places = [
        (row, position, float(np.exp(logprobs[position])))
        for row, (ids, logprobs) in enumerate(zip(texts, prefilled.logprobs, strict=True))
        for position in self._positions(ids, logprobs)]
    branches = [
        sampling.Branch(row, starts[row] + position,
                        fold_seed(self._settings.seed, documents[row].id, position, sample))
        for row, position, _ in places for sample in range(self._tool.m)]
    texts = sampling.sample_branches(self._model, prefilled, branches, self._branch_config,
                                     sampling_rows=self._settings.sampling_rows)
    found = [self._parse(text) if text is not None else None for text in texts]
    counts = Counter(positions=len(places), samples=len(branches),
                     malformed=sum(call is None for call in found))
    return _merge_equal(documents, places, found, self._tool.m), counts

  def _positions(self, ids: list[int], logprobs: np.ndarray) -> list[int]:
    """Returns the k likeliest positions above tau_s, in order; calls never split a character."""
    allowed = self._model.tokenizer.starts_character[ids]
    if self._model.tokenizer.start_id is None:
      allowed[0] = False  # without a start token, the first token of a text has no probability
    passing = [i for i in range(len(ids)) if allowed[i] and np.exp(logprobs[i]) > self._tool.tau_s]
    return sorted(sorted(passing, key=lambda i: (-logprobs[i], i))[:self._tool.k])

  def _parse(self, continuation: str) -> Call | None:
    """Returns the call that a sampled continuation spells, if it spells one."""
    text = self._opening_text + continuation
    spans = self._syntax.find(text, {self._prompt.tool})
    if not spans or spans[0].start:
      return None
    call = Call(self._prompt.tool, spans[0].call.argument.strip())
    try:
      self._syntax.linearise(call)
    except ValueError:  # it would not read back as the same call
      return None
    return call

  def _first_allowed(self) -> np.ndarray:
    """Tells which tokens may follow the opening: after the tool's name only a parenthesis."""
    spelled = self._model.tokenizer.token_bytes
    if not self._settings.force_name:
      return np.ones(self._model.config.vocab_size, bool)
    allowed = np.zeros(self._model.config.vocab_size, bool)
    allowed[:len(spelled)] = [token.startswith(b'(') for token in spelled]
    return allowed


def fold_seed(*parts: int | str) -> int:
  """Returns 32 bits that depend on all `parts`: a seed that batching cannot change."""
  return int.from_bytes(stable_hash(*parts)[:4], 'little')


def _merge_equal(documents, places, found, m: int) -> list[Candidate]:
  """Returns one candidate for each different call at each position."""
  candidates: dict[tuple, Candidate] = {}
  for i, call in enumerate(found):
    if call is not None:
      row, position, probability = places[i // m]
      key = (row, position, call.argument)
      candidates.setdefault(key, Candidate(
          documents[row].id, call.name, call.argument, position, probability))
  return list(candidates.values())
