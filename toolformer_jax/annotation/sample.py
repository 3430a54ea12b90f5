"""Step 1: sample positions and calls (paper, section 2, "Sampling API Calls")."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from toolformer_jax.annotation.config import MIN_TEXT_TOKENS, AnnotationConfig, ToolConfig
from toolformer_jax.annotation.early_rejection import (
  REJECTED_POSITIONS,
  REJECTING_TEXTS,
  min_loss_no_call,
)
from toolformer_jax.annotation.filter import losses_no_call
from toolformer_jax.annotation.prompts import Prompt
from toolformer_jax.calls import Call, CallSyntax
from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.records import Candidate, Document
from toolformer_jax.errors import UserError
from toolformer_jax.inference import branch_sampling as sampling
from toolformer_jax.inference.shared_prefix import prefill_documents, prefill_prompt
from toolformer_jax.models.language_model import LanguageModel

_BELOW_TAU_S = 'below tau_s: '  # in counts, followed by a probability
_DOCUMENTS = 32  # in one batch: they have enough samples to fill all rows
_ROUNDING = 1e-3  # nats, more than losses differ by rounding


def check_fits(model: LanguageModel, prompt: Prompt, config: AnnotationConfig,
               syntax: CallSyntax) -> None:
  """Checks that the model can sample calls from `prompt`.

  Raises:
    UserError: the start of a call is not a single token, or the model has too few positions.
  """
  encode = model.tokenizer.encode
  model.tokenizer.single_id(syntax.start)
  prompt_tokens = sum(len(encode(part)) for part in (
      prompt.text_before_input(syntax), prompt.text_before_output()))
  text, call = config.max_text_tokens, config.max_call_tokens
  start = model.tokenizer.start_id is not None
  needed = start + prompt_tokens + 2 * text + len(encode(opening(prompt, config, syntax))) + call
  if needed > (positions := model.config.max_tokens):
    fitting = (positions - needed) // 2 + text
    advice = f'set AnnotationConfig.max_text_tokens to at most {fitting}'
    if fitting < MIN_TEXT_TOKENS:
      advice = (f'give {prompt.tool.lower()}/ToolConfig.prompt a shorter prompt, or take a model '
                'with more positions')
    raise UserError(
        f'the prompt of {prompt.tool}, {prompt_tokens} tokens, a text of {text} tokens twice and a '
        f'call of {call} tokens need {needed} positions, and the model has {positions}; {advice}')


def opening(prompt: Prompt, config: AnnotationConfig, syntax: CallSyntax) -> str:
  """Returns the text that every sample begins with."""
  return syntax.start + (prompt.tool if config.force_name else '')


class _Place(NamedTuple):
  """A position at which calls are sampled, in the text of a row; see `Candidate`."""

  row: int
  position: int
  probability: float
  loss_no_call: float | None = None


class CallSampler:
  """Samples calls to one tool; the keys and values of its prompt are computed once."""

  def __init__(self, *, model: LanguageModel, prompt: Prompt, tool_config: ToolConfig,
               config: AnnotationConfig, syntax: CallSyntax):
    """Computes the keys and values of the prompt.

    Args:
      model: samples the calls.
      prompt: few-shot prompt of the tool.
      tool_config: thresholds of the tool.
      config: settings that all tools share.
      syntax: how calls are written.
    """
    self._model, self._prompt, self._tool_config = model, prompt, tool_config
    self._config, self._syntax = config, syntax
    self._min_loss_no_call = min_loss_no_call(tool_config.tau_f, config)
    encode = model.tokenizer.encode
    self._shared = prefill_prompt(model, encode(prompt.text_before_input(syntax)))
    self._between = encode(prompt.text_before_output())
    self._start_id = model.tokenizer.single_id(syntax.start)
    self._opening_text = opening(prompt, config, syntax)
    self._branch_config = sampling.BranchConfig(
        opening=tuple(encode(self._opening_text)), first_allowed_V=self._first_allowed(),
        max_tokens=config.max_call_tokens, temperature=config.temperature,
        top_p=config.top_p,
        is_finished=lambda text: '\n' in text or self._parse(text) is not None)

  def __call__(self, documents: Sequence[Document]) -> tuple[list[Candidate], Counter]:
    """Returns the candidates of `documents`, and counts of documents, positions and samples.

    Batches have documents of similar length, and depend on `documents` only.
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
    # The text as the input of the prompt, then as its output, in which calls may start.
    tokens = [[*ids, *self._between, *ids] for ids in texts]
    starts = [len(ids) + len(self._between) for ids in texts]
    watched = [range(start, start + len(ids)) for start, ids in zip(starts, texts, strict=True)]
    counts: Counter[str] = Counter()
    prefilled = prefill_documents(
        self._model, self._shared, tokens, self._start_id, watched, counts)
    places = []
    for row, (ids, logprobs) in enumerate(zip(texts, prefilled.logprobs, strict=True)):
      allowed = self._allowed(ids)
      positions = self._positions(allowed, logprobs)
      places += [_Place(row, position, float(np.exp(logprobs[position])))
                 for position in positions]
      if not positions and allowed:
        counts[below_tau_s(float(np.exp(max(logprobs[i] for i in allowed))))] += 1
    if self._min_loss_no_call:
      places = self._reject_early(texts, places, counts)
    branches = [
        sampling.Branch(place.row, starts[place.row] + place.position,
                        fold_seed(self._config.seed, documents[place.row].id, place.position,
                                  sample))
        for place in places for sample in range(self._tool_config.m)]
    samples = sampling.sample_branches(self._model, prefilled, branches, self._branch_config,
                                       sampling_rows=self._config.sampling_rows, counts=counts)
    found = [self._parse(text) if text is not None else None for text in samples]
    counts.update(positions=len(places), samples=len(branches),
                  malformed=sum(call is None for call in found))
    return _unique_candidates(documents, places, found, self._tool_config.m), counts

  def _reject_early(self, texts: Sequence[list[int]], places: Sequence[_Place],
                    counts: Counter[str]) -> list[_Place]:
    """Returns the places at which a call may gain enough, with their losses without a call.

    Samples do not depend on those of other places: they are the same as without early rejection.
    """
    losses = losses_no_call(
        [(tuple(texts[place.row]), place.position) for place in places], model=self._model,
        scoring_tokens=self._config.scoring_tokens, counts=counts)
    kept, rejected = [], []
    for place, loss in zip(places, losses, strict=True):
      if loss < self._min_loss_no_call - _ROUNDING:
        rejected.append(place)
      else:
        kept.append(place._replace(loss_no_call=loss))
    counts.update({REJECTED_POSITIONS: len(rejected),
                   REJECTING_TEXTS: len({place.row for place in rejected})})
    return kept

  def _allowed(self, ids: list[int]) -> list[int]:
    """Returns the positions where a call may come: not between two tokens of a character."""
    # Without a start token, the first token has no loss to compare with.
    first = int(self._model.tokenizer.start_id is None)
    return [i for i in range(first, len(ids)) if self._model.tokenizer.starts_character[ids[i]]]

  def _positions(self, allowed: Sequence[int], logprobs: np.ndarray) -> list[int]:
    """Returns in order the k positions where a call is most probable, if above tau_s."""
    tau_s = self._tool_config.tau_s
    passing = [i for i in allowed if np.exp(logprobs[i]) > tau_s]
    return sorted(sorted(passing, key=lambda i: (-logprobs[i], i))[:self._tool_config.k])

  def _parse(self, continuation: str) -> Call | None:
    """Returns the call in a sampled continuation; None if it is not a whole call."""
    text = self._opening_text + continuation
    spans = self._syntax.find(text, {self._prompt.tool})
    if not spans or spans[0].start:
      return None
    call = Call(self._prompt.tool, spans[0].call.argument.strip())
    try:
      self._syntax.linearise(call)
    except ValueError:  # what is written would be read as another call
      return None
    return call

  def _first_allowed(self) -> np.ndarray:
    """Returns which tokens may follow the opening, [V] bool: after a tool's name only `(`."""
    spelled = self._model.tokenizer.token_bytes
    if not self._config.force_name:
      return np.ones(self._model.config.vocab_size, bool)
    allowed = np.zeros(self._model.config.vocab_size, bool)
    allowed[:len(spelled)] = [token.startswith(b'(') for token in spelled]
    return allowed


def below_tau_s(probability: float) -> str:
  """Returns the name under which texts are counted that have no position above tau_s.

  It has the highest probability of a position, rounded down to one digit.
  """
  exponent = math.floor(math.log10(max(probability, 1e-30)))
  return f'{_BELOW_TAU_S}{math.floor(probability / 10.0**exponent)}e{exponent}'


def texts_by_tau_s(counts: Mapping[str, int]) -> dict[float, int]:
  """Returns how many of the texts that have no position above tau_s would have one at others.

  They are those that `below_tau_s` has counted; the highest values of tau_s come first.
  """
  found, texts = {}, 0
  for name, count in sorted(counts.items(), key=lambda item: -_value(item[0])):
    if name.startswith(_BELOW_TAU_S):
      texts += count
      found[_value(name)] = texts
  return found


def _value(name: str) -> float:
  return float(name.removeprefix(_BELOW_TAU_S)) if name.startswith(_BELOW_TAU_S) else 0.0


def fold_seed(*parts: int | str) -> int:
  """Returns a seed of 32 bits that depends on `parts` only, and not on the batch."""
  return int.from_bytes(stable_hash(*parts)[:4], 'little')


def _unique_candidates(documents: Sequence[Document], places: Sequence[_Place],
                       found: Sequence[Call | None], m: int) -> list[Candidate]:
  """Returns the different calls at each position, each once."""
  candidates: dict[tuple, Candidate] = {}
  for i, call in enumerate(found):
    if call is not None:
      place = places[i // m]
      key = (place.row, place.position, call.argument)
      candidates.setdefault(key, Candidate(
          documents[place.row].id, call.name, call.argument, place.position, place.probability,
          loss_no_call=place.loss_no_call))
  return list(candidates.values())
