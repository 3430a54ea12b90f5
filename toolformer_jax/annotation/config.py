"""How a corpus is annotated: the paper's hyper-parameters (appendix A), and what it leaves open."""

from collections.abc import Iterable
from dataclasses import dataclass

from toolformer_jax.errors import unknown
from toolformer_jax.runtime.validation import check

STAGES = ('sample', 'execute', 'filter', 'merge')
THRESHOLDS = (0.5, 1.0, 2.0)  # of the gain, for which the paper's Table 2 counts calls


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
  """One tool's thresholds.

  Attributes:
    tau_s: a call may start where its probability is above this.
    k: at most this many positions a text, the likeliest ones.
    m: calls sampled at each position.
    tau_f: a call is kept if it lowers the loss by at least this, in nats.
    max_texts: at most this many texts keep calls to the tool (25,000 in the paper, appendix B).
    prompt: a file with the prompt to sample from, see `annotation.prompts.read_prompt`, in the
      working directory or in configs/; by default the one of the package for the paper's tools.
  """

  tau_s: float = 0.05
  k: int = 5
  m: int = 5
  tau_f: float = 1.0
  max_texts: int = 25_000
  prompt: str = ''

  def __post_init__(self):
    check(self, tau_s=(0.0, 1.0), k=(1, 1000), m=(1, 1000), max_texts=(1, 10**9))


# Appendix A: the heuristics for the calculator and the translator leave few texts, so that their
# thresholds are looser. Names in lower case.
PAPER_TOOL_CONFIGS = {
  'calculator': ToolConfig(tau_s=0.0, k=20, m=10, tau_f=0.5),
  'mt': ToolConfig(tau_s=0.0, k=20, m=10, tau_f=0.5),
  'calendar': ToolConfig(), 'qa': ToolConfig(), 'wikisearch': ToolConfig()}


@dataclass(frozen=True)
class AnnotationConfig:
  """What all tools of a run share.

  Attributes:
    seed: of every random choice.
    max_text_tokens: longer texts are split; a text stands twice in the sampling prompt.
    temperature: of sampling calls (not stated in the paper); 0 for greedy.
    top_p: draw from the likeliest tokens that have this probability together (not stated).
    max_call_tokens: a sampled call that has not ended by then is discarded (not stated).
    force_name: begin every sample with the tool's name (the paper samples it too, from a prompt
      that knows no other tool).
    look_ahead_guard: drop calls whose argument, or a number in it, the text states only after the
      call: the model sees the whole text while annotating, and can copy from what is to come. Of
      translations such calls are always dropped, as in the paper (appendix A.1).
    early_reject: do not compute the loss after a call with an empty response where it decides
      nothing, as the result does not lower the loss without a call by enough. Half of the work of
      filtering; what is kept is the same.
    preselect: use the paper's heuristics for the texts in which a tool may help (appendix A.1).
    scoring_tokens: tokens of the texts that are scored in one batch.
    sampling_rows: most calls that are sampled at the same time. No result depends on these two but
      for rounding: more is faster on an accelerator, less needs less memory.
    chunk_documents: texts in one unit of work; what is done is not done again after a restart.
  """

  seed: int = 0
  max_text_tokens: int = 192
  temperature: float = 1.0
  top_p: float = 1.0
  max_call_tokens: int = 40
  force_name: bool = False
  look_ahead_guard: bool = False
  early_reject: bool = False
  preselect: bool = True
  scoring_tokens: int = 1024
  sampling_rows: int = 128
  chunk_documents: int = 16

  def __post_init__(self):
    check(self, max_text_tokens=(8, 100_000), temperature=(0.0, 10.0), top_p=(1e-6, 1.0),
          max_call_tokens=(1, 1000), chunk_documents=(1, 1_000_000),
          scoring_tokens=(1, 10**9), sampling_rows=(1, 10**6))
