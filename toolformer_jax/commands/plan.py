"""Tells whether a step of a model fits a TPU slice, and how fast it can be at most.

Compiles the program for TPUs that are not there (pip install 'toolformer_jax[aot]'). That a step
does not fit is an answer, too: the exit code is 0. The settings of training are those of tpu.gin
unless --gin_file names others: bfloat16, remat, and first moments in bfloat16.
"""

import argparse
import json
import os
import pathlib
from typing import TYPE_CHECKING

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError, unknown

if TYPE_CHECKING:
  from toolformer_jax.models.config import DecoderConfig

_STEPS = ('train', 'score', 'prefill', 'decode')
_SETTINGS = 'tpu.gin'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--model', required=True, metavar='M',
                      help='a file of configs/models such as gptj_6b, a gin file, or a checkpoint')
  parser.add_argument('--topology', required=True, metavar='T',
                      help='chips by shape or size: v5e:2x4 or v5e-8; v4-8 and v5p-8 are 4 chips')
  parser.add_argument('--step', required=True, choices=_STEPS,
                      help='train, score (all tokens), prefill (8 documents before sampling), or '
                           'decode (4 tokens)')
  parser.add_argument('--batch', required=True, type=_positive, metavar='B',
                      help='rows of one forward and backward pass; rows of the cache')
  parser.add_argument('--length', required=True, type=_positive, metavar='L',
                      help='tokens of a row, slots of the cache')
  parser.add_argument('--mesh', type=_mesh, metavar='D,F,T',
                      help='chips along the axes data, fsdp and tensor; -1 for what the others '
                           'leave (default: all along fsdp; for prefill and decode along '
                           'tensor, as far as that divides the heads)')
  parser.add_argument('--search', action='store_true',
                      help='look for the best mesh, unless --mesh says it, and for the largest '
                           'batch that fits it')
  parser.add_argument('--json', action='store_true', help='one line of JSON')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  os.environ['JAX_PLATFORMS'] = 'cpu'  # nothing is run: a TPU of this machine stays free
  from toolformer_jax.planning.report import report
  from toolformer_jax.planning.search import plan
  args.gin_file = args.gin_file or [_SETTINGS]
  config = options.configuration(args)
  found = plan(
      _decoder_config(args.model), name=args.model, topology=args.topology, step=args.step,
      batch=args.batch, length=args.length, mesh=args.mesh, search=args.search,
      config=config.finetune, dtype=config.model.dtype)
  print(json.dumps(found.record()) if args.json else report(found))


def _decoder_config(model: str) -> 'DecoderConfig':
  """Returns what a model looks like, known by its sizes or as a checkpoint."""
  from toolformer_jax.checkpoints.pretrained import known_models, pretrained_config
  from toolformer_jax.config.loading import decoder_config, decoder_names
  if model in decoder_names() or model.endswith('.gin'):
    return decoder_config(model)
  if pathlib.Path(model).exists() or model in known_models() or '/' in model:
    return pretrained_config(model)
  raise unknown('model', model, [*decoder_names(), *known_models()])


def _positive(text: str) -> int:
  if text.isdecimal() and int(text):
    return int(text)
  raise UserError(f'{text!r} is no positive number')


def _mesh(text: str) -> tuple[int, int, int]:
  try:
    data, fsdp, tensor = map(int, text.split(','))
  except ValueError:
    raise UserError(f'--mesh: {text!r} is not of the form 1,8,1') from None
  sizes = data, fsdp, tensor
  if min(sizes) < -1 or 0 in sizes or sizes.count(-1) > 1:
    raise UserError(f'--mesh: {text!r} must have positive sizes, one of which may be -1')
  return sizes
