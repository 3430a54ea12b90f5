"""What an annotation takes at most: texts, tokens and device time of each stage, without weights.

Texts and positions are those of the run. How many calls a model writes, and how long they are, is
not known before: each sample counts as a call of its own of the greatest length, with a result of
`RESULT_TOKENS` tokens. Real runs stay below that: in the run with all tools of docs/tools.md, 14 to
22 of 100 samples became different calls, and the filter takes that share of its bound.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.annotation.documents import split_and_filter
from toolformer_jax.annotation.filter import WEIGHTS
from toolformer_jax.annotation.preselect import with_heuristic
from toolformer_jax.annotation.prompts import Prompt
from toolformer_jax.annotation.sample import opening
from toolformer_jax.calls import CallSyntax
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError
from toolformer_jax.inference.shared_prefix import DOCUMENT_ROWS
from toolformer_jax.models.config import INTEGER_DTYPES, DecoderConfig
from toolformer_jax.models.flops import block_weights, forward_flops, num_parameters
from toolformer_jax.planning.hlo import Collectives
from toolformer_jax.planning.roofline import roofline
from toolformer_jax.runtime.chips import Chip
from toolformer_jax.tokenizer import Tokenizer

# A snippet of the search, the longest result of the paper's tools, has about as many.
RESULT_TOKENS = 64
# Of a chip's memory, what weights may take: caches and activations need the rest.
_SHARE_OF_WEIGHTS = 0.7


@dataclass(frozen=True)
class StageCost:
  """What a stage of a tool takes at most.

  Attributes:
    tool: its name.
    stage: 'prefill' and 'decode', the two parts of sampling, 'execute' or 'filter'.
    texts: number of texts.
    calls: number of samples, or of calls; 0 for 'prefill'.
    tokens: number of tokens that the model reads or writes; 0 for 'execute'.
    flops: useful floating-point operations, see `models.flops`.
    chip_s: seconds of one chip, by the longer of arithmetic and memory traffic at the peak rates.
  """

  tool: str
  stage: str
  texts: int
  calls: int
  tokens: int
  flops: int
  chip_s: float


@dataclass(frozen=True)
class AnnotationPlan:
  """What an annotation takes.

  Attributes:
    documents: number of documents that were read.
    texts: number of texts that they were split into.
    chip: the chip.
    chips: how many of them the weights need at least.
    stages: of all tools.
  """

  documents: int
  texts: int
  chip: Chip
  chips: int
  stages: tuple[StageCost, ...]

  @property
  def chip_s(self) -> float:
    """Seconds of one chip for all stages."""
    return math.fsum(stage.chip_s for stage in self.stages)


def plan_annotation(
    documents: Iterable[Document], *, decoder: DecoderConfig, tokenizer: Tokenizer,
    tools: Mapping[str, tuple[ToolConfig, Prompt]], config: AnnotationConfig, syntax: CallSyntax,
    chip: Chip,
) -> AnnotationPlan:
  """Counts the work of an annotation.

  Args:
    documents: the corpus, or the first part of it.
    decoder: sizes of the model, and the dtype of the computation.
    tokenizer: of the model.
    tools: thresholds and prompt of each tool, by its name as in calls.
    config: settings that all tools share.
    syntax: how calls are written.
    chip: what the model runs on.

  Raises:
    UserError: there is no document, or two have the same id.
  """
  counts: Counter[str] = Counter()
  heuristics = with_heuristic(tools, config.preselect)
  lengths: dict[str, list[tuple[int, int]]] = {name: [] for name in tools}
  for document, selected_for in split_and_filter(
      documents, counts, tokenizer=tokenizer, syntax=syntax,
      max_tokens=config.max_text_tokens, heuristics=heuristics, seed=config.seed):
    length = _length_and_places(tokenizer, document)
    for name in tools:
      if name not in heuristics or name in selected_for:
        lengths[name].append(length)
  if not counts['read']:
    raise UserError('there is no document to annotate')
  stages = tuple(stage for name, (tool_config, prompt) in tools.items() for stage in _Tool(
      decoder, tokenizer, tool_config, prompt, config, syntax, chip).stages(lengths[name]))
  weights = weight_bytes(decoder)
  return AnnotationPlan(counts['read'], counts['documents'], chip,
                        math.ceil(weights / (_SHARE_OF_WEIGHTS * chip.memory)), stages)


def _length_and_places(tokenizer: Tokenizer, document: Document) -> tuple[int, int]:
  """Returns how many tokens a text has, and at how many of them a call can start."""
  ids = tokenizer.encode(document.text)
  allowed = np.array(tokenizer.starts_character[ids])
  if tokenizer.start_id is None:
    allowed[:1] = False
  return len(ids), int(allowed.sum())


def _bytes(decoder: DecoderConfig) -> int:
  return 2 if decoder.dtype == 'bfloat16' else 4


def weight_bytes(decoder: DecoderConfig) -> int:
  """Returns the size of the weights in inference, about; scales are not counted."""
  rounded = block_weights(decoder) * decoder.layers if decoder.dtype in INTEGER_DTYPES else 0
  bits = 4 if decoder.dtype == 'int4' else 8
  return (num_parameters(decoder) - rounded) * _bytes(decoder) + rounded * bits // 8


@dataclass(frozen=True)
class _Tool:
  """Counts the work of one tool; the fields are those of `plan_annotation`."""

  decoder: DecoderConfig
  tokenizer: Tokenizer
  tool_config: ToolConfig
  prompt: Prompt
  config: AnnotationConfig
  syntax: CallSyntax
  chip: Chip

  def stages(self, lengths: Sequence[tuple[int, int]]) -> Iterable[StageCost]:
    """Yields the stages for texts of `lengths`: tokens, and places where a call can start."""
    start = self.tokenizer.start_id is not None
    before = self._size(self.prompt.text_before_input(self.syntax)) + start
    between = self._size(self.prompt.text_before_output())
    samples = [min(places, self.tool_config.k) * self.tool_config.m for _, places in lengths]
    call = self._size(opening(self.prompt, self.config, self.syntax)) + self.config.max_call_tokens
    read = [2 * tokens + between for tokens, _ in lengths]
    yield self._prefill(before, read, [tokens for tokens, _ in lengths])
    yield self._decode(before, read, samples, call)
    yield StageCost(self.prompt.tool, 'execute', len(lengths), sum(samples), 0, 0, 0.0)
    closed = call + self._size(self.syntax.closing('')) + 1
    # Without a call, with one without a result, and with one and its result.
    scored = [(start + tokens, 1) for tokens, _ in lengths]
    for extra in (closed, closed + RESULT_TOKENS):
      scored += [(start + extra + tokens, number)
                 for (tokens, _), number in zip(lengths, samples, strict=True)]
    yield self._filter(len(lengths), sum(samples), scored)

  def _size(self, text: str) -> int:
    return len(self.tokenizer.encode(text))

  def _prefill(self, before: int, read: Sequence[int], texts: Sequence[int]) -> StageCost:
    flops = forward_flops(self.decoder, before) if read else 0
    flops += sum(forward_flops(self.decoder, tokens, before, logits)
                 for tokens, logits in zip(read, texts, strict=True))
    runs = len(read) / DOCUMENT_ROWS + bool(read)
    return self._cost('prefill', len(read), 0, sum(read) + before * bool(read), flops, runs)

  def _decode(self, before: int, read: Sequence[int], samples: Sequence[int], call: int
              ) -> StageCost:
    flops = sum(number * forward_flops(self.decoder, call, before + tokens, call)
                for tokens, number in zip(read, samples, strict=True))
    tokens = sum(samples) * call
    runs = tokens / self.config.sampling_rows
    cached = runs * before + call * sum(
        tokens * number for tokens, number in zip(read, samples, strict=True))
    return self._cost('decode', len(read), sum(samples), tokens, flops, runs, cached)

  def _filter(self, texts: int, calls: int, scored: Sequence[tuple[int, int]]) -> StageCost:
    flops = sum(number * forward_flops(self.decoder, tokens, 0, len(WEIGHTS))
                for tokens, number in scored)
    tokens = sum(tokens * number for tokens, number in scored)
    runs = tokens / self.config.scoring_tokens
    return self._cost('filter', texts, calls, tokens, flops, runs)

  def _cost(self, stage: str, texts: int, calls: int, tokens: int, flops: int, runs: float,
            cached: float = 0) -> StageCost:
    """Returns a stage that reads all weights `runs` times, in full batches, and `cached` tokens."""
    if not tokens:
      return StageCost(self.prompt.tool, stage, texts, calls, 0, 0, 0.0)
    c = self.decoder
    kept = 2 * c.layers * c.kv_heads * c.head_dim
    traffic = runs * weight_bytes(c) + cached * kept * _bytes(c)
    bound = roofline(chip=self.chip, chips=1, tokens=tokens, useful_flops=flops, flops=flops,
                     traffic=traffic, collectives=Collectives())
    return StageCost(self.prompt.tool, stage, texts, calls, tokens, flops,
                     max(bound.compute_s, bound.memory_s))


def annotation_table(plan: AnnotationPlan, price_per_chip_hour: float | None) -> str:
  """Returns a plan as a table; with a price, in dollars for a million documents as well."""
  import tabulate
  def row(name: str, stage: str, *numbers: int, chip_s: float) -> list[str]:
    cells = [name, stage, *(f'{number:,}' if number else '-' for number in numbers)]
    return [*cells, *_time_and_price(plan, chip_s, price_per_chip_hour)]
  rows = [row(one.tool, one.stage, one.texts, one.calls, one.tokens, chip_s=one.chip_s)
          for one in plan.stages]
  total = sum(one.tokens for one in plan.stages)
  rows.append(row('all', '', 0, 0, total, chip_s=plan.chip_s))
  names = ['tool', 'stage', 'texts', 'calls', 'tokens', 'chip seconds',
           'chip hours per million documents']
  if price_per_chip_hour is not None:
    names.append('dollars per million documents')
  table = tabulate.tabulate(rows, names, disable_numparse=True,
                            colalign=('left', 'left', *['right'] * (len(names) - 2)))
  needed = '' if plan.chips == 1 else f' The weights need {plan.chips} chips at least.'
  return (f'{plan.documents:,} documents, {plan.texts:,} texts; {plan.chip.name}\n\n{table}\n\n'
          'These are the tokens if every sample is a call of its own and of the greatest length; '
          'the filter of a real run takes a part of them. The times are lower bounds for them, by '
          f"the chip's peak rates.{needed} The time of tools is not counted.")


def _time_and_price(plan: AnnotationPlan, chip_s: float, price: float | None) -> list[str]:
  if not chip_s:
    return ['-'] * (2 if price is None else 3)
  hours = chip_s / 3600 * 1e6 / plan.documents
  cells = [f'{chip_s:,.2f}', f'{hours:,.1f}']
  return cells if price is None else [*cells, f'{hours * price:,.0f}']
