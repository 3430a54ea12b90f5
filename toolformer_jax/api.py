"""The public functions.

Each takes its main argument first, all else by keyword, and writes files only to an `output_dir`.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from toolformer_jax.annotation import token_losses as losses
from toolformer_jax.annotation.annotate import annotate as run_annotation
from toolformer_jax.annotation.config import STAGES, AnnotationConfig, ToolConfig, known_stages
from toolformer_jax.annotation.documents import AnyTexts, as_documents, documents_fingerprint
from toolformer_jax.annotation.pipeline import AnnotationPipeline
from toolformer_jax.annotation.prompts import Prompt
from toolformer_jax.annotation.result import AnnotationResult
from toolformer_jax.annotation.tool_plan import tool_plans
from toolformer_jax.annotation.verified_filter import check_dtypes
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.checkpoints.any_model import (
  AnyModel,
  as_model,
  decoder_config,
  model_fingerprint,
)
from toolformer_jax.checkpoints.export import export_model
from toolformer_jax.checkpoints.loading import ModelConfig, load_model
from toolformer_jax.compression.compress import CompressionResult, compress_model
from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation import runner
from toolformer_jax.evaluation.arms import Arm, as_arms
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.label_scoring import check_ensemble
from toolformer_jax.evaluation.plan import EvaluationPlan
from toolformer_jax.evaluation.result import EvaluationResult
from toolformer_jax.evaluation.task import Task
from toolformer_jax.evaluation.tasks import find_tasks
from toolformer_jax.inference import generation, scoring
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.request import GeneratedText
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.paths import as_absolute_path, as_path
from toolformer_jax.runtime.run_dir import Shard, software_versions
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.executor import Executor, ExecutorConfig
from toolformer_jax.tools.media_contexts import Media, contexts_with_media
from toolformer_jax.tools.registry import AnyTool, Toolbox, build_tools, tool_objects
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.finetune import check_fits
from toolformer_jax.training.finetune import finetune as finetune_on_texts
from toolformer_jax.training.mixture import check_epoch
from toolformer_jax.training.result import FinetuneResult
from toolformer_jax.training.sources import Source, Text, as_texts
from toolformer_jax.training.stream import TextStream, check_stream_settings, training_data

if TYPE_CHECKING:
  import jax


def annotate(
    model: AnyModel, documents: AnyTexts | Callable[[], Iterable[str | Document]], *,
    tools: AnyTool | Sequence[AnyTool], output_dir: epath.PathLike | None = None,
    config: AnnotationConfig = AnnotationConfig(),
    tool_configs: Mapping[str, ToolConfig] | None = None,
    prompts: Mapping[str, Prompt] | None = None, model_config: ModelConfig = ModelConfig(),
    executor_config: ExecutorConfig = ExecutorConfig(), toolbox: Toolbox = Toolbox(),
    syntax: CallSyntax = DEFAULT_SYNTAX, call_store: CallStore | None = None,
    stages: str | Sequence[str] = STAGES, shard: Shard = Shard(),
    start_from: Source | Sequence[Source] | None = None,
    depends_on: Mapping[str, str] | None = None, extra_files: Mapping[str, str] | None = None,
) -> AnnotationResult:
  """Finds the calls that help a model to predict texts: sample, execute, filter (paper, section 2).

  Args:
    model: samples the calls and scores them.
    documents: a text or several, as strings or Documents; or a function that returns them, which
      is only called if no earlier run in `output_dir` has read them.
    tools: names ('calculator'), Tool objects, functions of text, or paths ('my_tools.py:upper').
    output_dir: folder of the run, see `annotation.run_dir`. A run that was interrupted continues
      there. None for a temporary folder, which is removed together with the result.
    config: settings that all tools share.
    tool_configs: thresholds by the tool's name, in any case; by default the paper's.
    prompts: few-shot prompts by the tool's name, in any case; by default those of this package.
    model_config: how the model is loaded if it is given by name.
    executor_config, toolbox: limits of tool calls, and how tools that are given by name are built.
    syntax, call_store: how calls are written; what records the results of tools, or replays them.
    stages: some of 'sample', 'execute', 'filter' and 'merge'; all earlier stages must be complete.
    shard: the part of the work that this process does.
    start_from: other runs; their stages that depend on the same are used.
    depends_on: hashes, by name, of anything else that the results depend on; 'checkpoint' and
      'corpus' are added if absent. If `documents` is a function, 'corpus' must be given.
    extra_files: texts that are written to `output_dir` before the work, by file name.

  Raises:
    UserError: an argument is invalid, or the folder holds a run of another checkpoint or corpus.
  """
  stages = known_stages(_as_list(stages))
  depends_on = dict(depends_on or {})
  if callable(documents):
    if 'corpus' not in depends_on:
      raise UserError("a function that returns documents needs depends_on={'corpus': HASH}")
    read_documents = documents
  else:
    listed = list(as_documents(documents))  # an iterator could be read only once
    depends_on.setdefault('corpus', documents_fingerprint(listed))
    def read_documents() -> list[Document]:
      return listed
  built = build_tools(_as_list(tools), toolbox.writing_to(output_dir), call_store)
  plans = tool_plans(built, tool_configs, prompts)
  if not isinstance(model, LanguageModel):
    check_dtypes(config, model_config.dtype)  # before it is loaded
  model = as_model(model, model_config).for_inference()
  if 'checkpoint' not in depends_on:
    depends_on['checkpoint'] = model_fingerprint(model)
  annotation = AnnotationPipeline(model, plans, config, executor_config, syntax, call_store)
  return run_annotation(
      annotation, lambda: as_documents(read_documents()), output_dir=_as_path(output_dir),
      depends_on=depends_on, stages=stages, shard=shard,
      start_from=map(as_absolute_path, _as_list(start_from or ())), extra_files=extra_files)


def score(model: AnyModel, texts: str | Sequence[str], *, scoring_tokens: int = 1024,
          names: Sequence[str] | None = None) -> list[dict[str, Any]]:
  """Returns the log-probability of every token of every text, given the tokens before it.

  Args:
    model: the model.
    texts: a text or several.
    scoring_tokens: largest number of tokens in a batch.
    names: how errors refer to each text; by default 'text 0', ...

  Returns:
    for each text {'token_ids': [...], 'logprobs': [...]}, with natural logarithms. The first token
    of a text has None: no start token is put before it.

  Raises:
    UserError: a text is longer than the model allows.
  """
  return scoring.score_texts(as_model(model), _as_list(texts), scoring_tokens=scoring_tokens,
                             names=names)


def token_losses(model: AnyModel, text: str, *, call: str = '', position: int | None = None,
                 syntax: CallSyntax = DEFAULT_SYNTAX) -> losses.TokenLosses:
  """Returns the loss of each token of a text, with and without a call (paper, section 2).

  Args:
    model: the model.
    text: the text, with the call in it if `call` is not given.
    call: the call with its result, `[Calculator(2 + 3) -> 5]`.
    position: index of the token of `text` that the call comes before; needed with `call` alone.
    syntax: how calls are written in texts.

  Raises:
    UserError: there is no call, it is malformed, or there is no token at `position`.
  """
  return losses.token_losses(as_model(model), text, call=call, position=position, syntax=syntax)


def generate(
    model: AnyModel, prompts: str | Sequence[str], *, tools: AnyTool | Sequence[AnyTool] = (),
    config: GenerationConfig = GenerationConfig(), engine_config: EngineConfig = EngineConfig(),
    contexts: Sequence[Context] | None = None, media: Media = (),
    seeds: Sequence[int] | None = None, adapters: str | Sequence[str | None] | None = None,
    executor_config: ExecutorConfig = ExecutorConfig(), toolbox: Toolbox = Toolbox(),
    syntax: CallSyntax = DEFAULT_SYNTAX, call_store: CallStore | None = None,
    on_text: Callable[[int, str], None] | None = None,
    on_finished: Callable[[int, GeneratedText], None] | None = None,
    names: Sequence[str] | None = None) -> GeneratedText | list[GeneratedText]:
  """Continues texts, with calls to tools.

  Args:
    model: the model.
    prompts: a text or several.
    tools: tools by name, Tool objects, functions from a string to a string, or paths of functions.
    config: how each text is generated.
    engine_config: number of texts that are generated at the same time.
    contexts: what tools can use of each text, such as its date.
    media: files that calls name by handles such as `image 1`; of several texts, a list for each.
    seeds: seed of each text; by default `config.seed`, `config.seed + 1`, ...
    adapters: name of an adapter of the model for all texts, or a list with a name or None for each.
    executor_config, toolbox, syntax, call_store: as in `annotate`.
    on_text: called with the index of a prompt and the next piece of its continuation.
    on_finished: called with the index of a prompt and its continuation, as soon as it is finished.
    names: how errors refer to each prompt; by default 'prompt 0', ...

  Returns:
    the continuation of the text, or a list of them.

  Raises:
    UserError: a prompt is blank or too long, or a tool cannot be built.
  """
  model = as_model(model)
  texts = _as_list(prompts)
  names = names or [f'prompt {i}' for i in range(len(texts))]
  ids = [generation.encode_prompt(model, *one, config) for one in zip(names, texts, strict=True)]
  with contextlib.ExitStack() as stack:
    executor = None
    if tools:
      built = build_tools(_as_list(tools), toolbox, call_store)
      executor = stack.enter_context(
          Executor(built, executor_config, syntax=syntax, store=call_store))
    outputs = generation.generate(
        model, ids, config=config, engine_config=engine_config, executor=executor,
        contexts=contexts_with_media(texts, contexts, media, toolbox.media), syntax=syntax,
        seeds=seeds, on_text=on_text, on_finished=on_finished,
        adapters=[adapters] * len(texts) if isinstance(adapters, str) else adapters)
  return outputs[0] if isinstance(prompts, str) else outputs


def finetune(
    model: AnyModel,
    data: AnnotationResult | TextStream | Source | Iterable[Source | Text | Document], *,
    output_dir: epath.PathLike | None = None,
    dev: AnnotationResult | Source | Iterable[Source | Text | Document] | None = None,
    config: FinetuneConfig = FinetuneConfig(), mixture: MixtureConfig = MixtureConfig(),
    model_config: ModelConfig = ModelConfig(), devices: 'Sequence[jax.Device] | None' = None,
    without_calls: bool = False, syntax: CallSyntax = DEFAULT_SYNTAX,
    depends_on: Mapping[str, str] | None = None, extra_files: Mapping[str, str] | None = None,
    teacher: AnyModel | None = None) -> FinetuneResult:
  """Trains a model on texts with calls (paper, section 2, last step).

  Args:
    model: the model to begin with. The memory of the weights that are trained is reused, so that
      they can not be used afterwards.
    data: the result of `annotate`; texts; or names of sources, see `toolformer finetune --help`. A
      task of seqio alone, `seqio:MODULE:NAME`, is read while the model is trained.
    output_dir: folder of the run and of the trained model. A run that was interrupted continues
      there. None for a temporary folder, so that an interrupted run is lost.
    dev: texts by which the best checkpoint is chosen; by default `mixture.dev_texts` are held out.
    config: how the model is trained.
    mixture: how many texts of each tool an epoch has.
    model_config, devices: how and onto which devices a model is loaded that is given by name.
    without_calls: train on the same texts without their calls: the paper's baseline "+ CC".
    syntax: how calls are written in texts.
    depends_on: hashes, by name, of anything else that the result depends on; 'checkpoint' and
      'teacher' are added if absent.
    extra_files: texts that are written to `output_dir` before the work, by file name.
    teacher: the model of `config.distillation`, on the same devices; loaded as `model` is.

  Raises:
    UserError: there is no text to train on, the teacher does not fit, the folder holds a run with
      another configuration, or the loss explodes.
  """
  config.check_has_teacher(teacher is not None)
  texts = training_data(data)
  if isinstance(texts, TextStream):
    check_stream_settings(config, mixture, without_calls)
  else:
    check_epoch(texts, mixture)
  if not isinstance(model, LanguageModel):
    model_config.check_is_float('trained')
  check_fits(config, decoder_config(model), None if teacher is None else decoder_config(teacher))
  if teacher is not None:
    teacher = as_model(teacher, model_config, devices).for_inference()
  model = as_model(model, model_config, devices)
  depends_on = dict(depends_on or {})
  for name, one in (('checkpoint', model), ('teacher', teacher)):
    if one is not None and name not in depends_on:
      depends_on[name] = model_fingerprint(one)
  with contextlib.ExitStack() as stack:
    path = as_path(output_dir or stack.enter_context(
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
    result = finetune_on_texts(
        model, texts, dev=None if dev is None else as_texts(dev), config=config,
        mixture=mixture, without_calls=without_calls, syntax=syntax, output_dir=path,
        depends_on=depends_on, extra_files=extra_files, teacher=teacher)
  return result if output_dir is not None else dataclasses.replace(result, output_dir=None)


def evaluate(
    tasks: str | Task | Sequence[str | Task], *, arms: Mapping[str, AnyModel] | Sequence[Arm],
    data_dir: epath.PathLike = 'data', tools: AnyTool | Sequence[AnyTool] | None = None,
    limit: int | None = None, output_dir: epath.PathLike | None = None,
    config: EvaluationConfig = EvaluationConfig(),
    generation_config: GenerationConfig = GenerationConfig(),
    engine_config: EngineConfig = EngineConfig(), model_config: ModelConfig = ModelConfig(),
    executor_config: ExecutorConfig = ExecutorConfig(), toolbox: Toolbox = Toolbox(),
    syntax: CallSyntax = DEFAULT_SYNTAX, call_store: CallStore | None = None,
    shard: Shard = Shard(), extra_files: Mapping[str, str] | None = None,
) -> EvaluationResult:
  """Evaluates models on benchmarks, with and without tools (paper, section 4.2).

  Args:
    tasks: benchmarks by name, or Task objects.
    arms: {'base': model, 'toolformer': model, ...}. Models that are given by name are loaded one
      after the other, so that only one of them is in memory.
    data_dir: folder with the official files of each task; 'tfds:' for TensorFlow Datasets.
    tools: what Toolformer may call, as in `generate`; by default the paper's tools that this
      machine has.
    limit: number of questions of each task; None for all.
    output_dir: folder of the report and the predictions. A later call computes only predictions
      that are not there. None for no files.
    config: how questions are prompted and answers are matched.
    generation_config, engine_config: how answers are generated.
    model_config: how models that are given by name are loaded.
    executor_config, toolbox, syntax, call_store, extra_files: as in `annotate`.
    shard: the examples of each task that this process predicts; the last one to finish reports.

  Raises:
    UserError: an argument is invalid, or a model or a tool cannot be loaded.
  """
  plan = evaluation_plan(
      tasks, arms=arms, data_dir=data_dir, tools=tools, limit=limit, config=config,
      generation_config=generation_config, engine_config=engine_config, model_config=model_config,
      executor_config=executor_config, toolbox=toolbox, syntax=syntax)
  _, in_memory = as_arms(arms)
  def load(name: str) -> LanguageModel:
    return (in_memory.get(name) or load_model(name, config=model_config)).for_inference()
  objects = tool_objects(_as_list(tools or ()))
  @contextlib.contextmanager
  def open_executor() -> Iterator[Executor]:
    built = build_tools([objects.get(name, name) for name in plan.tool_names],
                        toolbox.writing_to(output_dir), call_store)
    with Executor(built, executor_config, syntax=syntax, store=call_store) as executor:
      yield executor
  return runner.evaluate(plan, load_model=load, open_executor=open_executor,
                         output_dir=_as_path(output_dir), shard=shard, extra_files=extra_files)


def evaluation_plan(
    tasks: str | Task | Sequence[str | Task], *, arms: Mapping[str, AnyModel] | Sequence[Arm],
    data_dir: epath.PathLike, tools: AnyTool | Sequence[AnyTool] | None, limit: int | None,
    config: EvaluationConfig, generation_config: GenerationConfig, engine_config: EngineConfig,
    model_config: ModelConfig, executor_config: ExecutorConfig, toolbox: Toolbox,
    syntax: CallSyntax,
) -> EvaluationPlan:
  """Returns the plan of `evaluate`, which has the same arguments, after checking all of them."""
  chosen = [task for one in _as_list(tasks)
            for task in (find_tasks([one]) if isinstance(one, str) else [one])]
  arms, in_memory = as_arms(arms)
  if config.ensemble_adapters:
    check_ensemble(in_memory.values())
  dtypes = {in_memory[arm.checkpoint].config.dtype if arm.checkpoint in in_memory
            else model_config.dtype for arm in arms}
  if len(dtypes) > 1:
    raise UserError(f'the models of the arms compute in different dtypes, {", ".join(dtypes)}; '
                    'load all of them with the same ModelConfig.dtype')
  calls = any(arm.calls for arm in arms)
  objects = tool_objects(_as_list(tools or ()))
  by_name = [one for one in _as_list(tools or ()) if isinstance(one, str) and ':' not in one]
  names = list(dict.fromkeys([*objects, *(toolbox.canonical_names(by_name) if by_name else ())]))
  if not tools and calls:
    names = toolbox.available()
  return EvaluationPlan(
      tasks=chosen, arms=arms, data_dir=str(data_dir), limit=limit, config=config,
      generation=generation_config, engine=engine_config, syntax=syntax,
      tool_names=names if calls else [], dtype=next(iter(dtypes), model_config.dtype),
      checkpoint_hashes={name: model_fingerprint(in_memory.get(name, name))
                         for name in (arm.checkpoint for arm in arms)},
      tool_versions={name: objects[name].version if name in objects else toolbox.version(name)
                     for name in names} if calls else {},
      limits={'time_limit_s': executor_config.time_limit_s,
              'max_result_chars': executor_config.max_result_chars},
      versions=software_versions())


def export(model: AnyModel, *, output_dir: epath.PathLike, adapter_of: str | None = None,
           format: str = 'safetensors', quantization: str | None = None) -> epath.Path:
  """Writes a model for transformers, which loads it with the same logits, or for llama.cpp.

  Args:
    model: the model; its adapter is merged into the weights.
    output_dir: an empty or a new folder.
    adapter_of: write only the adapter, for PEFT or AdapterHub; the name or path of its base model.
    format: 'safetensors' for a Hugging Face directory, 'gguf' for the file `model.gguf`.
    quantization: of a GGUF file: 'f16' (the default), 'bf16', 'q8_0', 'q4_0' or 'q4_1'.

  Raises:
    UserError: the folder is not empty, or the model cannot be written in this format.
  """
  path = as_path(output_dir)
  export_model(model, path, adapter_of=adapter_of, format=format, quantization=quantization)
  return path


def compress(model: AnyModel, texts: Iterable[str] | None = None, *, output_dir: epath.PathLike,
             config: CompressionConfig = CompressionConfig(), zstd: bool = False
             ) -> CompressionResult:
  """Writes a smaller model, as `compression.compress.compress_model` does, whose docstring names
  the arguments, the result and the errors."""
  return compress_model(as_model(model), texts, output_dir=as_path(output_dir), config=config,
                        zstd=zstd)


def _as_list(values: Any) -> list[Any]:
  """Returns a list of `values`; of one string or one object, a list with it alone."""
  return [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)


def _as_path(path: epath.PathLike | None) -> epath.Path | None:
  """Returns an absolute path: a tool may change the working directory."""
  return None if path is None else as_absolute_path(path)
