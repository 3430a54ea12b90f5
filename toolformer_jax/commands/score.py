"""Writes the log-probability of every token of every text, each given the tokens before it.

Input is JSON Lines of {id, text}; output {id, token_ids, logprobs}, natural logarithms. The first
token of a text has none (null): no token is put before it.
"""

import argparse
import copy
import dataclasses
import json
import math
import pathlib
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from toolformer_jax.checkpoints.loading import Dtype, load_model
from toolformer_jax.commands import options
from toolformer_jax.data.input_texts import InputText, read_texts
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import whole_file

if TYPE_CHECKING:
  from toolformer_jax.models.language_model import LanguageModel

_TEXTS_AT_ONCE = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser)
  parser.add_argument('--input', required=True, type=pathlib.Path, metavar='F',
                      help='JSON Lines of {id, text}, plain, .gz or .zst')
  parser.add_argument('--output', required=True, type=pathlib.Path, metavar='F',
                      help='JSON Lines of {id, token_ids, logprobs}')
  parser.add_argument('--dtype', choices=typing.get_args(Dtype),
                      help='of the computation (default: float32)')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax.runtime.progress import Progress
  chosen = [f'ModelConfig.dtype = {args.dtype!r}'] if args.dtype else []
  settings = options.configuration(args, *chosen).model
  if args.output.resolve() == args.input.resolve():
    raise UserError('--output is the file that --input reads; choose another one')
  texts = list(read_texts(args.input))
  if not texts:
    raise UserError(f'{args.input} holds no text')
  model = _without_start(load_model(args.checkpoint, settings).frozen())
  try:
    with whole_file(args.output) as file, Progress('scoring', len(texts), 'texts') as progress:
      for record in _scored(model, texts):
        file.write(json.dumps(record) + '\n')
        progress.advance(1)
  except OSError as error:
    raise UserError(f'can not write {args.output}: {error.strerror}') from error


def _without_start(model: 'LanguageModel') -> 'LanguageModel':
  """Returns the model with a tokenizer that puts no start token before a text."""
  tokenizer = copy.copy(model.tokenizer)
  tokenizer.start_id = None
  return dataclasses.replace(model, tokenizer=tokenizer)


def _scored(model: 'LanguageModel', texts: Sequence[InputText]) -> Iterator[dict[str, Any]]:
  from toolformer_jax.inference.scoring import ScoreRequest, score
  for first in range(0, len(texts), _TEXTS_AT_ONCE):
    batch = texts[first:first + _TEXTS_AT_ONCE]
    ids = [tuple(_encode(model, text)) for text in batch]
    logprobs = score(model, [ScoreRequest((), tokens, tuple(range(len(tokens)))) for tokens in ids])
    for text, tokens, values in zip(batch, ids, logprobs, strict=True):
      known = [None if math.isnan(value) else value for value in values.tolist()]
      yield {'id': text.id, 'token_ids': list(tokens), 'logprobs': known}


def _encode(model: 'LanguageModel', text: InputText) -> list[int]:
  ids = model.tokenizer.encode(text.text)
  if len(ids) > model.config.max_positions:
    raise UserError(f'{text.where}: the text has {len(ids)} tokens, and the model only '
                    f'{model.config.max_positions} positions; split it')
  return ids
