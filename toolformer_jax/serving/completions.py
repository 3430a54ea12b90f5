"""POST /v1/completions: continues texts, as `generate` does."""

import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from toolformer_jax.inference.token_logprobs import TextOffsets, TokenLogprobs
from toolformer_jax.serving import sse
from toolformer_jax.serving.chat_template import check_chars
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.generation import Choice, Generation, Prompt, tool_calls
from toolformer_jax.serving.logprobs import Scorer
from toolformer_jax.serving.protocol import CompletionRequest
from toolformer_jax.serving.service import Service, reseeded


@dataclass(frozen=True)
class Completion:
  """A request with its choices: `n` of the first prompt, then of the second.

  Attributes:
    service, scorer: what answers it.
    fields: of the request.
    choices: its texts.
    id, created: of the response.
  """

  service: Service
  scorer: Scorer
  fields: CompletionRequest
  choices: list[Choice]
  id: str
  created: int

  @property
  def prompts(self) -> list[Prompt]:
    """What is to be generated: nothing where the request only wants its prompts back."""
    return [] if self.fields.max_tokens == 0 else [choice.prompt for choice in self.choices]

  @property
  def scores_prompts(self) -> bool:
    """Whether the response has log-probabilities of its prompts."""
    return self.fields.logprobs is not None and bool(self.fields.echo)

  async def response(self, generation: Generation) -> dict[str, Any]:
    """Returns the response to a request that is not streamed."""
    async for number, event in generation.events():
      self.choices[number].apply(event)
    choices = [await self._choice(number) for number in range(len(self.choices))]
    return {**self._head(), 'choices': choices, 'usage': self._usage()}

  async def stream(self, generation: Generation) -> AsyncIterator[str]:
    """Yields the events of a streamed response."""
    offsets = [TextOffsets(self.service.model.tokenizer) for _ in self.choices]
    if self.fields.echo:
      for number, choice in enumerate(self.choices):
        scored = await self._scored_prompt(choice)
        yield self._chunk(number, text=self._prompt_text(choice),
                          logprobs=self._logprobs(scored, offsets[number]),
                          finish_reason=None if self.prompts else 'length')
    async for number, event in generation.events():
      delta = self.choices[number].apply(event)
      if delta and delta.output:
        yield self._chunk(number, finish_reason=delta.output.finish_reason)
      elif delta:
        calls = {'toolformer_calls': tool_calls(delta.calls)} if delta.calls else {}
        logprobs = self._logprobs(delta.logprobs, offsets[number]) if delta.logprobs else None
        yield self._chunk(number, text=delta.text, logprobs=logprobs, **calls)
    if self.fields.stream_options and self.fields.stream_options.include_usage:
      yield sse.event({**self._head(), 'choices': [], 'usage': self._usage()})
    yield sse.DONE

  def _head(self) -> dict[str, Any]:
    return {'id': self.id, 'object': 'text_completion', 'created': self.created,
            'model': self.fields.model}

  def _chunk(self, index: int, **fields: Any) -> str:
    choice = {'index': index, 'text': '', 'logprobs': None, 'finish_reason': None, **fields}
    return sse.event({**self._head(), 'choices': [choice]})

  def _prompt_text(self, choice: Choice) -> str:
    return self.service.model.tokenizer.decode(choice.prompt.ids)

  async def _scored_prompt(self, choice: Choice) -> list[TokenLogprobs]:
    """Returns the log-probabilities of a prompt; none if they are not wanted."""
    return await self.scorer.score(choice.prompt) if self.scores_prompts else []

  async def _choice(self, number: int) -> dict[str, Any]:
    """Returns a choice that is done."""
    choice = self.choices[number]
    tokens = [*await self._scored_prompt(choice), *choice.logprobs]
    logprobs = self._logprobs(tokens, TextOffsets(self.service.model.tokenizer))
    before = self._prompt_text(choice) if self.fields.echo else ''
    return {'index': number, 'text': before + choice.text, 'logprobs': logprobs,
            'finish_reason': choice.output.finish_reason if choice.output else 'length',
            'toolformer_calls': tool_calls(choice.calls)}

  def _logprobs(self, tokens: Sequence[TokenLogprobs], offsets: TextOffsets
                ) -> dict[str, Any] | None:
    """Returns the field `logprobs` for the next tokens of a choice; None if it is not wanted."""
    if self.fields.logprobs is None:
      return None
    decode, top = self.service.model.tokenizer.decode, self.fields.logprobs
    def likeliest(token: TokenLogprobs) -> dict[str, float] | None:
      found: dict[str, float] = {}
      for i, value in token.top[:top]:
        found.setdefault(decode([i]), value)  # parts of characters may look alike: the best counts
      return None if token.logprob is None else found
    return {'tokens': [decode([token.token]) for token in tokens],
            'token_logprobs': [token.logprob for token in tokens],
            'top_logprobs': list(map(likeliest, tokens)) if top else None,
            'text_offset': [offsets.add(token.token) for token in tokens]}

  def _usage(self) -> dict[str, Any]:
    return usage(self.choices, self.fields.n or 1)


def prepare(service: Service, scorer: Scorer, fields: CompletionRequest) -> Completion:
  """Returns what a request asks for.

  Raises:
    ApiError: the request is invalid or exceeds a limit.
  """
  texts, n = _prompts(fields.prompt), fields.n or 1
  service.check_n(len(texts) * n)
  if fields.max_tokens == 0 and not fields.echo:
    raise ApiError(400, 'max_tokens may be 0 only with echo', param='max_tokens',
                   code='invalid_value')
  choices: list[Choice] = []
  for text in texts:
    prompt = _prompt(service, fields, text)
    choices += [Choice(prompt._replace(params=reseeded(prompt.params, len(choices) + i)),
                       service.tools_in_text(fields.tools_in_text)) for i in range(n)]
  return Completion(service, scorer, fields, choices, f'cmpl-{uuid.uuid4().hex}', int(time.time()))


def _prompts(prompt: str | list) -> list[str | list[int]]:
  """Returns the prompts, each as a text or as ids."""
  if isinstance(prompt, str) or (prompt and isinstance(prompt[0], int)):
    return [prompt]
  if not prompt:
    raise ApiError(400, 'prompt: there is none', param='prompt', code='invalid_value')
  return prompt


def _prompt(service: Service, fields: CompletionRequest, text: str | list[int]) -> Prompt:
  """Returns one prompt, checked. Ids are taken as they are, without a start token before them."""
  tokenizer, is_text = service.model.tokenizer, isinstance(text, str)
  if isinstance(text, str):
    check_chars(text, service.max_prompt_chars)
  ids = tokenizer.encode(text) if isinstance(text, str) else text
  if not is_text and any(not 0 <= i < tokenizer.vocab_size for i in ids):
    raise ApiError(400, f'prompt: ids of tokens are 0 to {tokenizer.vocab_size - 1}',
                   param='prompt', code='invalid_value')
  start = is_text and tokenizer.start_id is not None
  if not ids and not start:
    raise ApiError(400, 'prompt: there is no token to continue from', param='prompt',
                   code='invalid_value')
  max_tokens = service.max_tokens(
      fields.max_tokens, service.generation.max_tokens, len(ids) + start, 'max_tokens')
  params = service.params(
      fields, max_tokens=max_tokens, seed=fields.seed, stop=service.stop(fields.stop),
      min_tokens=fields.min_tokens)
  return Prompt(ids, params, is_text, service.adapter(fields.model), fields.logprobs is not None)


def usage(choices: Sequence[Choice], n: int) -> dict[str, Any]:
  """Returns how many tokens there were; those of calls and results count as completion.

  A prompt of `n` choices counts once, with what the prefix cache had of it for the first of them.
  """
  read = sum(len(choice.prompt.ids) for choice in choices[::n])
  cached = sum(choice.num_cached_tokens for choice in choices[::n])
  written = sum(len(choice.output.token_ids) for choice in choices if choice.output)
  return {'prompt_tokens': read, 'completion_tokens': written, 'total_tokens': read + written,
          'prompt_tokens_details': {'cached_tokens': cached}}
