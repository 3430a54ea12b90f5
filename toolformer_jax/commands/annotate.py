"""Finds the API calls that help a model to predict a corpus.

Calls are sampled, executed, filtered and merged into their texts (the stages sample, execute,
filter and merge). A run that was interrupted continues when the same command is run again.
OUTPUT_DIR/merged has the texts with calls, OUTPUT_DIR/config.gin the configuration, and
OUTPUT_DIR/report.md the counts of each stage and the calls with the largest gains. In the same
folder, another threshold or tool runs only the stages that depend on it.

Examples:
  toolformer annotate --corpus texts.jsonl --checkpoint smollm2-135m \\
      --tools calculator,calendar --gin_file quickstart.gin --output_dir runs/annotated
  toolformer annotate --gin_file runs/annotated/config.gin --output_dir runs/again
"""

import argparse
import collections
import functools
import itertools
import logging
import math

from toolformer_jax.annotation.config import STAGES
from toolformer_jax.commands import options
from toolformer_jax.data import hub_datasets
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.chips import CHIPS
from toolformer_jax.runtime.standard_output import print_result

log = logging.getLogger(__name__)
_DRY_RUN_DOCUMENTS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_corpus(parser)
  options.add_checkpoint(parser)
  options.add_tools(parser)
  options.add_required(parser, 'output_dir', type=options.path, metavar='D',
                       help='the folder of the run; the same command continues it')
  parser.add_argument('--stage', choices=(*STAGES, 'all'), default='all',
                      help='run only this stage; all earlier stages must be complete (default: '
                           'all)')
  parser.add_argument('--from', dest='start_from', action='append', default=[], type=options.path,
                      metavar='D', help='the output folder of another run: its stages that depend '
                                        'on the same settings are not computed again; may be '
                                        'repeated')
  parser.add_argument('--seed', type=int, metavar='N', help='seed of all random choices')
  options.add_call_store(parser)
  options.add_shards(parser, 'Several processes can share the work in one folder; the last one to '
                             'finish merges.')
  group = parser.add_argument_group('estimate', description=(
      'What the run would take at most: texts, tokens and device time of each tool and stage. No '
      'weights are loaded, and nothing is written.'))
  group.add_argument('--dry_run', action='store_true', help='print the estimate')
  group.add_argument('--limit', type=int, metavar='N',
                     help=f'of the first N documents (default: {_DRY_RUN_DOCUMENTS}; 0: all)')
  group.add_argument('--chip', metavar='C', choices=[chip.name for chip in CHIPS],
                     help=f'one of {", ".join(chip.name for chip in CHIPS)} (default: v5e)')
  group.add_argument('--price_per_chip_hour', type=_price, metavar='P', help='in dollars')
  options.add_configuration(parser)


def _price(text: str) -> float:
  """Reads a price, which is not below 0."""
  try:
    price = float(text)
  except ValueError:
    price = math.nan
  if not 0 <= price < math.inf:
    raise UserError(f'--price_per_chip_hour: {text!r} is not a price')
  return price


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  if args.dry_run:
    _dry_run(args)
    return
  for name in ('limit', 'chip', 'price_per_chip_hour'):
    if getattr(args, name) is not None:
      raise UserError(f'--{name} works only with --dry_run')
  from toolformer_jax.annotation.prompts import prompt_for
  from toolformer_jax.annotation.run_reader import RunReader
  from toolformer_jax.annotation.stage_keys import DOCUMENTS
  from toolformer_jax.data.corpus import corpus_hash, read_corpus
  shard = options.shard(args)
  # A saved configuration may bind this seed by itself; the option wins over it.
  seed = [] if args.seed is None else ['AnnotationConfig.seed = %SEED']
  config = options.configuration(args, *seed)
  names = config.toolbox.canonical_names(args.tools)
  for name in names:
    prompt_for(name, config.tool_config(name).prompt)  # an error before anything slow
  read = functools.partial(read_corpus, args.corpus, config.corpus, config.toolbox.media)
  if not RunReader(args.output_dir).is_complete(DOCUMENTS):
    # A broken line must be found before the folder is created: a corrected corpus is another one,
    # which the folder would refuse.
    collections.deque(itertools.islice(read(), _checked(args.corpus)), maxlen=0)
  for name in names:
    if name.lower() in config.shared:
      own = config.tool_config(name)
      log.info('%s has no ToolConfig of its own; it has tau_s = %g, k = %d, m = %d, tau_f = %g',
               name, own.tau_s, own.k, own.m, own.tau_f)
  from toolformer_jax import api
  with options.call_store(args) as store:
    result = api.annotate(
        options.model(args, config), read, tools=names, output_dir=args.output_dir,
        config=config.annotation, tool_configs={name: config.tool_config(name) for name in names},
        model_config=config.model, executor_config=config.executor, toolbox=config.toolbox,
        syntax=config.syntax, call_store=store, shard=shard,
        stages=STAGES if args.stage == 'all' else (args.stage,),
        depends_on={'corpus': corpus_hash(args.corpus, config.corpus, config.toolbox.media)},
        extra_files={'config.gin': config.text}, start_from=args.start_from)
  if shard.count > 1 and not result.complete:
    print_result(f'shard {shard.index} of {shard.count} is complete; the last shard to finish '
                 'merges and writes the report')
    return
  log.info('%s\n', result.time_table)
  print_result(result.summary)


def _dry_run(args: argparse.Namespace) -> None:
  """Prints what the run would take."""
  from toolformer_jax.annotation.prompts import prompt_for
  from toolformer_jax.checkpoints.pretrained import pretrained_config, pretrained_tokenizer
  from toolformer_jax.data.corpus import read_corpus
  from toolformer_jax.planning.annotation import annotation_table, plan_annotation
  args.required = [name for name in args.required if name != 'output_dir']
  config = options.configuration(args)
  limit = _DRY_RUN_DOCUMENTS if args.limit is None else args.limit or None
  if limit is not None and limit < 0:
    raise UserError(f'--limit is {limit}; it must be a number of documents, or 0 for all')
  chosen = [(name, config.tool_config(name)) for name in config.toolbox.canonical_names(args.tools)]
  plan = plan_annotation(
      itertools.islice(read_corpus(args.corpus, config.corpus, config.toolbox.media), limit),
      decoder=pretrained_config(args.checkpoint).replace(dtype=config.model.dtype),
      tokenizer=pretrained_tokenizer(args.checkpoint),
      tools={name: (tool, prompt_for(name, tool.prompt)) for name, tool in chosen},
      config=config.annotation, syntax=config.syntax,
      chip=next(chip for chip in CHIPS if chip.name == (args.chip or 'v5e')))
  print_result(annotation_table(plan, args.price_per_chip_hour))


def _checked(corpus: str) -> int | None:
  """Returns how many documents are read before the run: all; of a hosted corpus one."""
  return 1 if corpus.startswith(hub_datasets.PREFIXES) else None

