"""Trains a decoder from nothing on a corpus: random weights, and a tokenizer of the corpus."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from toolformer_jax import sharding
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.checkpoints.loading import ModelConfig
from toolformer_jax.data.corpus import CorpusConfig
from toolformer_jax.data.records import AnnotatedDocument, Document
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import INTEGER_DTYPES
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder
from toolformer_jax.runtime.paths import as_absolute_path, write_text
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.finetune import check_fits, finetune
from toolformer_jax.training.mixture import check_epoch, hold_out
from toolformer_jax.training.pretrain_config import PretrainConfig
from toolformer_jax.training.result import FinetuneResult
from toolformer_jax.training.sources import Source, Text, as_texts
from toolformer_jax.training.stream import TextStream, check_stream_settings, training_data
from toolformer_jax.training.tokenizer_training import train_tokenizer

_TOKENIZER_TEXTS = 1_000_000


def pretrain(
    data: TextStream | Source | Iterable[Source | Text | Document], *, output_dir: epath.PathLike,
    tokenizer: Tokenizer | None = None,
    dev: Source | Iterable[Source | Text | Document] | None = None,
    shape: PretrainConfig = PretrainConfig(), config: FinetuneConfig = FinetuneConfig(),
    mixture: MixtureConfig = MixtureConfig(cap=10**9), model_config: ModelConfig = ModelConfig(),
    devices: Sequence[jax.Device] | None = None, syntax: CallSyntax = DEFAULT_SYNTAX,
    corpus_config: CorpusConfig = CorpusConfig(), extra_files: Mapping[str, str] | None = None,
) -> FinetuneResult:
  """Trains a decoder with random weights on texts; every token of a text is a target.

  Args:
    data: texts, or names of sources, as in `finetune`.
    output_dir: folder of the run, which becomes a checkpoint. A run that was interrupted continues
      there.
    tokenizer: of an existing model; None to train one on the texts that are not held out, or on the
      first million of them.
    dev: texts whose loss is measured, and by which the best checkpoint is chosen; by default
      `mixture.dev_texts` are held out, as in `finetune`.
    shape: the decoder.
    config: how it is trained.
    mixture: how many texts are used and held out.
    model_config, devices: dtype of the computation, and the mesh.
    syntax: how calls are spelled; their start becomes one token of a new tokenizer.
    corpus_config: how corpora are read that are given by name.
    extra_files: texts that are written to `output_dir` before the work, by file name.

  Raises:
    UserError: there is no text, a tokenizer is missing where none can be trained, a setting cannot
      be used, the folder holds another run, or the loss explodes.
  """
  _check_settings(config, model_config, has_tokenizer=tokenizer is not None)
  check_fits(config, shape.decoder(shape.vocab_size))
  texts = training_data(data, corpus_config)
  dev_texts = None if dev is None else as_texts(dev, corpus_config)
  if isinstance(texts, TextStream):
    check_stream_settings(config, mixture, without_calls=False)
    if tokenizer is None:
      raise UserError('a stream is read while the model is trained, so that no tokenizer can be '
                      'trained on it before; give the tokenizer of a model')
  else:
    check_epoch(texts, mixture)
    if dev_texts is None and not config.privacy:  # before the tokenizer sees them
      texts, dev_texts = hold_out(texts, mixture)
    tokenizer = tokenizer or train_tokenizer(_plain_texts(texts), shape.vocab_size, syntax=syntax)
  model = new_model(shape, tokenizer, model_config, devices)
  depends_on = {'pretrain': {'tokenizer': tokenizer.fingerprint, 'seed': shape.seed}}
  output_dir = as_absolute_path(output_dir)
  result = finetune(
      model, texts, dev=dev_texts, config=config, mixture=mixture, output_dir=output_dir,
      depends_on=depends_on, syntax=syntax, extra_files=extra_files, title='pretraining')
  # The paper states settings of fine-tuning alone.
  result = dataclasses.replace(result, departures=())
  if jax.process_index() == 0:
    write_text(output_dir / 'report.md', f'# Pretraining\n\n{result.summary()}\n')
  return result


def new_model(shape: PretrainConfig, tokenizer: Tokenizer, config: ModelConfig = ModelConfig(),
              devices: Sequence[jax.Device] | None = None) -> LanguageModel:
  """Returns a decoder with random weights, the same on every mesh.

  Matrices are drawn from a normal distribution with a standard deviation of 0.02, as in GPT-2.

  Raises:
    UserError: the mesh does not fit the devices.
  """
  mesh = config.make_mesh(devices)
  decoder = make_decoder(mesh, shape.decoder(tokenizer.vocab_size).replace(dtype=config.dtype))
  shardings = sharding.state_shardings(abstract_variables(decoder), mesh)
  def init() -> Any:
    return sharding.unbox(decoder.init(jax.random.key(shape.seed), jnp.zeros((1, 2), jnp.int32)))
  return LanguageModel(decoder, jax.jit(init, out_shardings=shardings)(), tokenizer, mesh)


def _check_settings(config: FinetuneConfig, model_config: ModelConfig, has_tokenizer: bool) -> None:
  """Raises UserError for settings with which no model can be trained from nothing."""
  if config.adapter:
    raise UserError('FinetuneConfig.adapter would leave the random weights of a new model as they '
                    'are; pretrain without an adapter')
  config.check_has_teacher(given=False)
  if model_config.dtype in INTEGER_DTYPES:
    raise UserError(f'a model in {model_config.dtype} cannot be trained; set ModelConfig.dtype to '
                    'float32 or bfloat16')
  if config.privacy and not has_tokenizer:
    raise UserError('FinetuneConfig.privacy does not protect what a tokenizer learns from the '
                    'texts; give the tokenizer of a model that has not seen them')


def _plain_texts(texts: Sequence[Text]) -> Iterable[str]:
  """Yields what the tokenizer is trained on: texts without their calls."""
  for text in itertools.islice(texts, _TOKENIZER_TEXTS):
    parts = ((text.document.text,) if isinstance(text, AnnotatedDocument)
             else (text.inputs, text.targets))
    yield from (part for part in parts if isinstance(part, str))
