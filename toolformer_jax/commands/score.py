"""Computes the log-probability of every token of texts, given the tokens before it.

The input is JSON Lines of {id, text}, the output JSON Lines of {id, token_ids, logprobs} with
natural logarithms. The first token of a text has null: no start token is put before it.

Examples:
  toolformer score --checkpoint smollm2-135m --input texts.jsonl --output scores.jsonl
"""

import argparse
import json

from toolformer_jax.commands import options
from toolformer_jax.data.input_texts import read_texts
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.output_dir import check_output_file
from toolformer_jax.runtime.paths import as_absolute_path, atomic_writer, reason


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser)
  parser.add_argument('--input', required=True, type=options.path, metavar='F',
                      help='JSON Lines of {id, text}, plain, .gz or .zst')
  parser.add_argument('--output', required=True, type=options.path, metavar='F',
                      help='JSON Lines of {id, token_ids, logprobs}')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  config = options.configuration(args)
  check_output_file(args.output)
  if as_absolute_path(args.output) == as_absolute_path(args.input):
    raise UserError('--output and --input are the same file; choose another --output')
  texts = list(read_texts(args.input, with_context=False))
  if not texts:
    raise UserError(f'{args.input} has no text')
  from toolformer_jax import api
  model = api.load_model(args.checkpoint, config=config.model, adapter=args.adapter).for_inference()
  try:
    with atomic_writer(args.output) as file:
      scores = api.score(model, [text.text for text in texts],
                         scoring_tokens=config.annotation.scoring_tokens,
                         names=[text.where for text in texts])
      for text, found in zip(texts, scores, strict=True):
        file.write(json.dumps({'id': text.id, **found}) + '\n')
  except OSError as error:
    raise UserError(f'cannot write {args.output}: {reason(error)}') from error
