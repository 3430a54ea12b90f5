"""What the stages of experiments take, without weights: texts, tokens, floating-point operations.

Counts are upper bounds where they depend on what a model will write. They assume that all samples
of an annotation are different calls of the greatest length (see `planning.annotation`), that rows
of the training are full, and that each continuation of the evaluation has its greatest length, with
all calls that it may have. For a corpus or a benchmark with more than `SAMPLE` texts, the total is
extrapolated from the first ones. Not counted: tools, loading, compilation, recomputation, and
held-out texts of the training.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolformer_jax.annotation.config import PAPER_TOOL_CONFIGS, ToolConfig
from toolformer_jax.annotation.early_rejection import sampling_settings
from toolformer_jax.annotation.prompts import Prompt, prompt_for
from toolformer_jax.annotation.stage_keys import stage_folders, stage_name
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.checkpoints.pretrained import pretrained_config, pretrained_tokenizer
from toolformer_jax.data import hub_datasets
from toolformer_jax.data.catalogue import corpus_names, find_fetched
from toolformer_jax.data.corpus import CorpusConfig, read_corpus
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import MissingDataError
from toolformer_jax.evaluation.label_scoring import target_text
from toolformer_jax.evaluation.predict import rolling_windows
from toolformer_jax.evaluation.task import (
  ClassificationTask,
  PerplexityTask,
  Question,
  QuestionTask,
  Task,
  Text,
)
from toolformer_jax.evaluation.tasks import find_tasks, load_examples
from toolformer_jax.experiments.stages import Annotate, Compress, Evaluate, Finetune, Stage
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.flops import forward_flops, training_flops
from toolformer_jax.planning.annotation import RESULT_TOKENS, plan_annotation
from toolformer_jax.runtime.chips import CHIPS
from toolformer_jax.tokenizer import Tokenizer

SAMPLE = 250  # documents of a corpus, and examples of a benchmark, that are tokenized
_MOST_DOCUMENTS = 100_000  # of a corpus that are counted; more would take long


class UnknownCostError(UserError):
  """What a stage takes cannot be known before it, or not soon."""


@dataclass(frozen=True)
class Cost:
  """What a stage takes, at most.

  Attributes:
    texts: number of texts that calls are sampled for, or of questions and texts of an evaluation.
    tokens: number of tokens that the model reads or writes.
    flops: useful floating-point operations, see `models.flops`.
  """

  texts: int = 0
  tokens: int = 0
  flops: int = 0

  def __add__(self, other: 'Cost') -> 'Cost':
    return Cost(self.texts + other.texts, self.tokens + other.tokens, self.flops + other.flops)

  def times(self, factor: float) -> 'Cost':
    """Returns the cost of `factor` times as much work."""
    return Cost(*(round(value * factor) for value in dataclasses.astuple(self)))


class CostCounter:
  """Counts the cost of stages. What several of them share counts once, in the first of them."""

  def __init__(self) -> None:
    self._counted: set[str] = set()  # parts of annotations
    self._evaluations: dict[tuple[str, str], Cost] = {}  # seeds have equal ones
    self._model = functools.cache(_model)
    self._documents = functools.cache(_documents)

  def count(self, stage: Stage) -> Cost:
    """Returns what a stage takes; parts of an annotation that an earlier one has are free.

    Raises:
      NotLocalError: the checkpoint or the corpus would have to be downloaded.
      UnknownCostError: it depends on what a stage before this one finds, or counting would take
        long.
      UserError: the corpus or a benchmark is broken, for instance.
    """
    match stage:
      case Annotate():
        return self._annotation(stage)
      case Finetune():
        teacher = None
        if stage.teacher is not None:
          teacher = self._model(checkpoint_of(stage.teacher))[0]
        return _training(stage, self._model(checkpoint_of(stage))[0], teacher)
      case Compress():
        return _compression(stage, self._model(checkpoint_of(stage))[0])
      case Evaluate():
        return self._evaluation(stage)
    raise TypeError(stage.kind)

  def _annotation(self, stage: Annotate) -> Cost:
    decoder, tokenizer = self._model(checkpoint_of(stage))
    names = stage.toolbox.canonical_names(stage.tools)
    tools = {name: _tool(stage, name) for name in names}
    parts = _parts(stage, tools)
    if self._counted >= {*parts.values()}:
      return Cost()
    documents, number = self._documents(stage.corpus, stage.corpus_config, stage.toolbox.media)
    if number > _MOST_DOCUMENTS:
      raise UnknownCostError(
          f'{stage.corpus} has more than {_MOST_DOCUMENTS:,} documents, which --dry_run does not '
          'count; `toolformer annotate --dry_run --limit 0` reads them all')
    plan = plan_annotation(
        documents, decoder=decoder.replace(dtype=stage.model_config.dtype), tokenizer=tokenizer,
        tools=tools, config=stage.config, syntax=stage.syntax, chip=CHIPS[0])
    left = [one for one in plan.stages if parts[one.tool, one.stage] not in self._counted]
    self._counted |= {*parts.values()}
    texts = plan.texts if any(one.stage == 'prefill' for one in left) else 0
    cost = Cost(texts, sum(one.tokens for one in left), sum(one.flops for one in left))
    return cost.times(number / len(documents))

  def _evaluation(self, stage: Evaluate) -> Cost:
    decoder, tokenizer = self._model(checkpoint_of(stage))
    if isinstance(stage.model, Finetune):
      decoder = decoder.replace(adapter=stage.model.config.adapter)
    alike = dataclasses.replace(stage, arm='', model=checkpoint_of(stage))
    key = alike.key, str(decoder.adapter)
    if key not in self._evaluations:
      costs = (_task_cost(stage, task, decoder, tokenizer) for task in find_tasks(stage.tasks))
      self._evaluations[key] = sum(costs, Cost())
    return self._evaluations[key]


def checkpoint_of(model: str | Stage) -> str:
  """Returns the checkpoint that a stage begins with; its model has this shape or a smaller one."""
  match model:
    case str():
      return model
    case Annotate() | Finetune() | Compress() | Evaluate():
      return checkpoint_of(model.model)
  raise TypeError(model.kind)


def _model(checkpoint: str) -> tuple[DecoderConfig, Tokenizer]:
  """Returns shape and tokenizer of a model, which must be on this machine."""
  return (pretrained_config(checkpoint, local_files_only=True),
          pretrained_tokenizer(checkpoint, local_files_only=True))


def _tool(stage: Annotate, name: str) -> tuple[ToolConfig, Prompt]:
  given = {tool.lower(): config for tool, config in stage.tool_configs.items()}
  config = given.get(name.lower()) or PAPER_TOOL_CONFIGS.get(name.lower(), ToolConfig())
  return config, prompt_for(name, config.prompt)


def _parts(stage: Annotate, tools: dict[str, tuple[ToolConfig, Prompt]]
           ) -> dict[tuple[str, str], str]:
  """Returns by tool and part of a `planning.annotation.StageCost` a key of what it depends on.

  Runs of equal keys share this part. The keys are those of runs, but for names in place of hashes.
  """
  model = stage.model if isinstance(stage.model, str) else stage.model.key
  described = {
      name: {**dataclasses.asdict(config), 'version': str(stage.toolbox),
             'prompt': prompt.text_before_input(DEFAULT_SYNTAX),
             **sampling_settings(config.tau_f, stage.config)}
      for name, (config, prompt) in tools.items()}
  folders = stage_folders({
      'checkpoint': model, 'dtype': stage.model_config.dtype, 'tools': described,
      'corpus': [stage.corpus, str(stage.corpus_config)], 'syntax': str(stage.syntax),
      'limits': str(stage.executor_config),
      'settings': {**dataclasses.asdict(stage.config), 'chunk_documents': stage.config.chunk_size}})
  stages = {'prefill': 'sample', 'decode': 'sample', 'execute': 'execute', 'filter': 'filter'}
  return {(name, part): folders[stage_name(name, own)]
          for name in tools for part, own in stages.items()}


def _documents(corpus: str, config: CorpusConfig, limits: MediaLimits
               ) -> tuple[Sequence[Document], int]:
  """Returns the first documents of a corpus, and the number of all, at most one too many."""
  if corpus.startswith(hub_datasets.PREFIXES):
    raise UnknownCostError(f'{corpus} is a hosted dataset, which --dry_run does not read')
  if corpus in corpus_names():
    find_fetched(corpus)  # an error where it would have to be downloaded
  documents = read_corpus(corpus, config, limits)
  first = list(itertools.islice(documents, SAMPLE))
  others = sum(1 for _ in itertools.islice(documents, _MOST_DOCUMENTS + 1 - SAMPLE))
  return first, len(first) + others


def _training(stage: Finetune, decoder: DecoderConfig, teacher: DecoderConfig | None) -> Cost:
  config = stage.config
  if config.epochs:
    raise UnknownCostError(
        'the steps of FinetuneConfig.epochs depend on the number of texts with calls')
  passes = 2 if config.adversarial_epsilon else 1
  flops = training_flops(decoder.replace(adapter=config.adapter), config.row_tokens)
  if teacher:
    flops += forward_flops(teacher, config.row_tokens, logits=config.row_tokens)
  row = Cost(0, config.row_tokens, passes * flops)
  return row.times(config.steps * config.batch_items)


def _compression(stage: Compress, decoder: DecoderConfig) -> Cost:
  """Returns the cost of the passes over the calibration texts.

  The inverses of GPTQ and the like are not counted.
  """
  config, tokens = stage.config, stage.config.calibration_tokens
  forward = forward_flops(decoder, tokens, logits=tokens)
  training = training_flops(decoder, tokens)
  flops = forward if config.layers else 0
  if config.kv_heads or config.mlp_dim:
    flops += {'magnitude': 0, 'activation': forward, 'taylor': training}[config.unit_scores]
  if config.sparsity:  # with 'wanda', each block runs before and after its change
    flops += {'magnitude': 0, 'wanda': 2 * forward, 'gradient': training}[config.weight_scores]
  if config.bits == 'mixed':  # each layer is tried alone
    flops += (decoder.layers + 1) * forward
  if config.bits != 'all' and config.rounding == 'gptq':
    flops += 2 * forward
  return Cost(0, tokens if flops else 0, flops).times(config.calibration_rows)


def _task_cost(stage: Evaluate, task: Task, decoder: DecoderConfig, tokenizer: Tokenizer) -> Cost:
  try:
    examples = load_examples(task, stage.data_dir, stage.config, stage.limit)
  except MissingDataError:
    return Cost()  # it will be left out
  first = examples[:SAMPLE]
  start = stage.config.start_token and tokenizer.start_id is not None
  if isinstance(task, PerplexityTask):
    costs: Iterable[Cost] = (_scored_text(one, stage.config, decoder, tokenizer, start)
                             for one in first if isinstance(one, Text))
  else:
    questions = [one for one in first if isinstance(one, Question)]
    written = _written(stage, task, questions[0], tokenizer)
    costs = (_answer(decoder, start + len(tokenizer.encode(one.prompt)), written)
             for one in questions)
  return sum(costs, Cost()).times(len(examples) / len(first))


def _written(stage: Evaluate, task: QuestionTask, question: Question, tokenizer: Tokenizer
             ) -> Sequence[int]:
  """Returns the number of tokens of each continuation of a prompt: one, or one for each label."""
  if isinstance(task, ClassificationTask):
    return [len(tokenizer.encode(target_text(label))) for label in question.labels]
  tokens = task.matcher.max_tokens(stage.config)
  names = stage.toolbox.canonical_names(stage.tools) if stage.tools else []
  if {*names} - task.without_tools:
    generation = stage.generation_config
    tokens += generation.max_calls * (generation.max_call_tokens + RESULT_TOKENS)
  return [tokens]


def _answer(decoder: DecoderConfig, prompt: int, written: Sequence[int]) -> Cost:
  """Returns the cost of one prompt and its continuations, of so many tokens each."""
  flops = forward_flops(decoder, prompt, logits=1)
  flops += sum(forward_flops(decoder, tokens, prompt, tokens) for tokens in written)
  return Cost(1, prompt + sum(written), flops)


def _scored_text(text: Text, config: EvaluationConfig, decoder: DecoderConfig,
                 tokenizer: Tokenizer, start: bool) -> Cost:
  window = min(config.window_tokens, decoder.max_tokens - 1)
  windows = rolling_windows(tuple(tokenizer.encode(text.text)), window,
                            min(config.stride_tokens, window))
  tokens = [start + len(one.token_ids) for one in windows]
  return Cost(1, sum(tokens), sum(
      forward_flops(decoder, count, logits=len(one.target_positions))
      for count, one in zip(tokens, windows, strict=True)))
