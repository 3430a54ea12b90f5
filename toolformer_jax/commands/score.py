"""Computes the log-probability of every token of texts, given the tokens before it.

The input is JSON Lines of {id, text}, the output JSON Lines of {id, token_ids, logprobs} with
natural logarithms. The first token of a text has null: no start token is put before it.
"""

import argparse
import json
import pathlib
import typing
from typing import TYPE_CHECKING

from toolformer_jax.checkpoints.loading import Dtype
from toolformer_jax.commands import options
from toolformer_jax.data.input_texts import InputText, read_texts
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import atomic_writer

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
                      help='dtype of the computation (default: float32)')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  from toolformer_jax import api
  from toolformer_jax.runtime.progress import Progress
  chosen = [f'ModelConfig.dtype = {args.dtype!r}'] if args.dtype else []
  config = options.configuration(args, *chosen)
  if args.output.resolve() == args.input.resolve():
    raise UserError('--output and --input are the same file; choose another --output')
  texts = list(read_texts(args.input))
  if not texts:
    raise UserError(f'{args.input} has no text')
  model = api.load_model(args.checkpoint, config=config.model).for_inference()
  for text in texts:
    _check(model, text)
  try:
    with atomic_writer(args.output) as file, Progress('scoring', len(texts), 'texts') as progress:
      for first in range(0, len(texts), _TEXTS_AT_ONCE):
        some = texts[first:first + _TEXTS_AT_ONCE]
        scores = api.score(model, [text.text for text in some],
                           scoring_tokens=config.annotation.scoring_tokens)
        for text, found in zip(some, scores, strict=True):
          file.write(json.dumps({'id': text.id, **found}) + '\n')
          progress.advance(1)
  except OSError as error:
    raise UserError(f'cannot write {args.output}: {error.strerror}') from error


def _check(model: 'LanguageModel', text: InputText) -> None:
  """Raises UserError if the text is longer than the model allows."""
  size = len(model.tokenizer.encode(text.text))
  if size > model.config.max_positions:
    raise UserError(f'{text.where}: the text has {size} tokens, and the model only '
                    f'{model.config.max_positions} positions; split it')
