"""Settings of an annotation: the paper's (appendix A), and those that it does not state."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from toolformer_jax.data.records import BaselineLoss
from toolformer_jax.errors import unknown
from toolformer_jax.runtime.validation import check

MIN_TEXT_TOKENS = 8  # the smallest max_text_tokens
STAGES = ('sample', 'execute', 'filter', 'merge')
FilterDtype = Literal['float32', 'bfloat16', 'int8']
CallPlacement = Literal['prefix', 'in_place']
THRESHOLDS = (0.5, 1.0, 2.0)  # the values of tau_f in the paper's Table 2


def known_stages(stages: Iterable[str]) -> tuple[str, ...]:
  """Returns `stages` in the order in which they run.

  Raises:
    UserError: one of them is unknown.
  """
  stages = list(stages)
  for stage in stages:
    if stage not in STAGES:
      raise unknown('stage', stage, STAGES)
  return tuple(stage for stage in STAGES if stage in stages)


@dataclass(frozen=True)
class ToolConfig:
  """How calls to one tool are sampled and filtered.

  Attributes:
    tau_s: calls are sampled at positions where a call starts with a probability above this.
    k: largest number of such positions in a text; those with the highest probabilities are taken.
    m: number of calls sampled at each position.
    tau_f: a call is kept if its result lowers the loss by at least this, in nats.
    max_texts: largest number of texts that keep calls to the tool (25,000 in the paper,
      appendix B).
    prompt: file of the few-shot prompt, see `annotation.prompts.read_prompt`, in the working
      directory or in configs/. By default the package's prompt for the tool.
  """

  tau_s: float = 0.05
  k: int = 5
  m: int = 5
  tau_f: float = 1.0
  max_texts: int = 25_000
  prompt: str = ''

  def __post_init__(self) -> None:
    check(self, tau_s=(0.0, 1.0), k=(1, 1000), m=(1, 1000), max_texts=(1, 10**9))


# By the tool's name in lower case. The heuristics of preselection leave few texts for the
# calculator and the translator, so their thresholds are lower (appendix A).
PAPER_TOOL_CONFIGS = {
  'calculator': ToolConfig(tau_s=0.0, k=20, m=10, tau_f=0.5),
  'mt': ToolConfig(tau_s=0.0, k=20, m=10, tau_f=0.5),
  'calendar': ToolConfig(), 'qa': ToolConfig(), 'wikisearch': ToolConfig()}


@dataclass(frozen=True)
class AnnotationConfig:
  """Settings of an annotation run that all tools share.

  Attributes:
    seed: of all random choices.
    max_text_tokens: longer texts are split, because the sampling prompt contains the text twice.
    temperature: of the sampled calls, 0 for greedy decoding (not stated in the paper).
    top_p: probability mass of the tokens that calls are sampled from (not stated).
    max_call_tokens: samples that are no whole call after this many tokens are dropped (not stated).
    force_name: begin every sample with the tool's name. The paper samples the name too, from a
      prompt that has no other tool.
    look_ahead_guard: drop calls whose argument, or a number in it, appears in the text only after
      the call. The model sees the whole text while it annotates, and can copy from there. Calls to
      the translator are always checked for this, as in the paper (appendix A.1).
    early_reject: sample no calls at positions where the loss without a call is so low that none can
      gain enough. Do not compute the loss with an empty result for calls that are rejected without
      it, because the loss with the result is not low enough compared with the loss without a call.
      The same calls are kept.
    call_placement: where the filter puts a call when it computes losses: 'prefix', before the
      text, as in the paper (footnote 3), or 'in_place', at its position, as in the texts of C*.
    baseline_loss: which loss the result has to lower: that without a call ('no_call'), that with
      an empty result ('no_result'), or the smaller of both ('min'), as in the paper (section 2).
    filter_dtype: dtype in which the filter computes losses, for a model in float32. With 'bfloat16'
      or 'int8', calls whose gain may decide what is kept are scored again in float32, see
      `verified_filter`; memory then holds the weights in both dtypes.
    verify_margin: largest difference, in nats, that is expected between a gain in `filter_dtype`
      and in float32. The same calls are kept as in float32 if no difference is larger.
    preselect: annotate only texts that pass the paper's heuristic for the tool (appendix A.1). A
      tool that reads media is only given texts that name a medium of its kind, in any case.
    scoring_tokens: largest number of tokens in a batch of texts that are scored.
    sampling_rows: largest number of calls that are sampled together. Results depend on these two
      only by rounding: larger values are faster on an accelerator, smaller ones need less memory.
    window_documents: number of texts of a tool from which device batches are formed. More fill
      the batches of a large accelerator better. Results depend on it only by rounding.
    chunk_documents: number of texts of a tool in a chunk, the unit of work that a restarted run
      does not repeat, and of its files; rounded up to a multiple of `window_documents`. Results do
      not depend on it.
  """

  seed: int = 0
  max_text_tokens: int = 192
  temperature: float = 1.0
  top_p: float = 1.0
  max_call_tokens: int = 40
  force_name: bool = False
  look_ahead_guard: bool = False
  early_reject: bool = False
  call_placement: CallPlacement = 'prefix'
  baseline_loss: BaselineLoss = 'min'
  filter_dtype: FilterDtype = 'float32'
  verify_margin: float = 0.2
  preselect: bool = True
  scoring_tokens: int = 1024
  sampling_rows: int = 128
  window_documents: int = 32
  chunk_documents: int = 1024

  def __post_init__(self) -> None:
    check(self, max_text_tokens=(MIN_TEXT_TOKENS, 100_000), temperature=(0.0, 10.0),
          top_p=(1e-6, 1.0), max_call_tokens=(1, 1000), verify_margin=(0.0, 100.0),
          chunk_documents=(1, 1_000_000), window_documents=(1, 1_000_000),
          scoring_tokens=(1, 10**9), sampling_rows=(1, 10**6))

  @property
  def chunk_size(self) -> int:
    """Number of texts in a chunk: a whole number of windows."""
    return -(-self.chunk_documents // self.window_documents) * self.window_documents
