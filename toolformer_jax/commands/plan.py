"""Computes whether a step of a model fits a TPU slice, and bounds of its speed.

Compiles the program for TPUs that need not be there (pip install 'toolformer_jax[aot]'). That a
step does not fit is an answer too: the exit code is 0. Settings start from tpu.gin: bfloat16, whole
blocks recomputed, first moments in bfloat16. --gin_file and --gin change them.

Examples:
  toolformer plan --model gptj_6b --topology v5e-8 --step train --batch 32 --length 1024
  toolformer plan --model gpt2_1.5b --topology v5e-8 --step score --batch 64 --length 512 --search
"""

import argparse
import json
import os

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.standard_output import print_result

_STEPS = ('train', 'score', 'prefill', 'decode')
_SETTINGS = 'tpu.gin'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--model', metavar='M',
                      help='a model known by its sizes such as gptj_6b, or a checkpoint, of which '
                           'config.json is enough (default: CHECKPOINT of a gin file)')
  parser.add_argument('--topology', required=True, metavar='T',
                      help='chips by shape or size: v5e:2x4 or v5e-8; v4-8 and v5p-8 have 4 chips')
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
                      help='look for the best mesh, unless --mesh is given, and for the largest '
                           'batch that fits it')
  parser.add_argument('--json', action='store_true', help='print one line of JSON')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  os.environ['JAX_PLATFORMS'] = 'cpu'  # nothing is run: a TPU of this machine stays free
  from toolformer_jax.planning.report import report
  from toolformer_jax.planning.search import plan
  config = options.configuration(args, first=[_SETTINGS])
  model = args.model or config.macros.get('CHECKPOINT')
  if not model:
    raise UserError('the following arguments are required: --model; a gin file can bind it as '
                    'CHECKPOINT')
  found = plan(
      model, topology=args.topology, step=args.step, batch=args.batch, length=args.length,
      mesh=args.mesh, search=args.search, config=config.finetune, dtype=config.model.dtype)
  print_result(json.dumps(found.record()) if args.json else report(found))


def _positive(text: str) -> int:
  if text.isdecimal() and int(text):
    return int(text)
  raise UserError(f'{text!r} is not a positive number')


def _mesh(text: str) -> tuple[int, int, int]:
  try:
    data, fsdp, tensor = map(int, text.split(','))
  except ValueError:
    raise UserError(f'--mesh: {text!r} is not of the form 1,8,1') from None
  sizes = data, fsdp, tensor
  if min(sizes) < -1 or 0 in sizes or sizes.count(-1) > 1:
    raise UserError(f'--mesh: {text!r} must have positive sizes, one of which may be -1')
  return sizes
