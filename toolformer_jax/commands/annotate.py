"""Finds the API calls that help a model to predict a corpus: corpus to C*.

Calls are sampled, executed, filtered and merged (stages sample, execute, filter, merge); what is
done is not done again when the same command is started again. The texts with calls are in
OUTPUT_DIR/merged, the configuration in OUTPUT_DIR/config.gin, and what came of it in
OUTPUT_DIR/report.md, the calls that help most among it.
"""

import argparse
import collections
import itertools
import logging
import pathlib

from toolformer_jax.annotation.config import STAGES
from toolformer_jax.commands import options
from toolformer_jax.data import hub_datasets
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.cluster import join_cluster
from toolformer_jax.runtime.run_dir import Shard
from toolformer_jax.runtime.standard_output import print_result

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_corpus(parser)
  options.add_checkpoint(parser)
  options.add_tools(parser)
  options.add_required(parser, 'output_dir', type=pathlib.Path, metavar='D')
  parser.add_argument('--stage', choices=(*STAGES, 'all'), default='all',
                      help='do only this stage; the ones before must be complete (default: all)')
  parser.add_argument('--seed', type=int, metavar='N', help='of all random choices')
  options.add_call_store(parser)
  group = parser.add_argument_group('several processes', description=(
      'Processes that write to one folder share the work; the one that ends last merges.'))
  group.add_argument('--num_shards', type=int, metavar='N', default=1,
                     help='of how many processes this is one (default: 1)')
  group.add_argument('--shard', type=int, metavar='I', help='which one, from 0')
  group.add_argument('--distributed', action='store_true',
                     help='take both from the processes of jax.distributed: TPU pods, Slurm, or '
                          'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax import api
  from toolformer_jax.annotation.prompts import prompt_for
  from toolformer_jax.annotation.run_dir import DOCUMENTS
  from toolformer_jax.data.content_hash import identity
  from toolformer_jax.data.corpus import read_corpus
  from toolformer_jax.tools.registry import build_tools
  shard = _shard(args)
  # A saved configuration may bind this seed by itself; the option wins over it.
  seed = [] if args.seed is None else ['AnnotationConfig.seed = %SEED']
  config = options.configuration(args, *seed)
  if not (args.output_dir / DOCUMENTS / '.COMPLETED').exists():
    # Read once before anything is written: a folder belongs to its corpus, and a corpus with a
    # mended line is another one.
    collections.deque(itertools.islice(read_corpus(args.corpus), _checked(args.corpus)), maxlen=0)
  names = config.toolbox.spelled(args.tools)
  tool_configs = {name.lower(): config.tool_config(name) for name in names}
  for name in names:  # prompts are quick to refuse
    prompt_for(name, tool_configs[name.lower()].prompt)
  with options.call_store(args) as store:
    tools = build_tools(names, config.toolbox, store)
    model = api.load_model(args.checkpoint, config=config.model)
    result = api.annotate(
        model, lambda: read_corpus(args.corpus), tools=tools, output_dir=args.output_dir,
        config=config.annotation, tool_configs=tool_configs, executor_config=config.executor,
        syntax=config.syntax, call_store=store, shard=shard,
        stages=STAGES if args.stage == 'all' else (args.stage,),
        depends_on={'checkpoint': identity(args.checkpoint), 'corpus': identity(args.corpus)})
  config.save(args.output_dir)
  if shard.count > 1 and not result.complete:
    print_result(
        f'shard {shard.index} of {shard.count} is done; the last one merges and reports')
    return
  if result.complete:
    report = f'{result.summary}\n\n{result.examples}\n'
    (args.output_dir / 'report.md').write_text(report, 'utf-8')
  log.info('%s\n', result.time_table)
  print_result(result.summary)


def _checked(corpus: str) -> int | None:
  """Returns how many documents are looked at before a run: all, or one that has to be fetched."""
  return 1 if corpus.startswith(hub_datasets.PREFIXES) else None


def _shard(args: argparse.Namespace) -> Shard:
  """Returns which part of the work this process does."""
  if not args.distributed and args.shard is None and args.num_shards != 1:
    raise UserError(f'--num_shards {args.num_shards} needs --shard: which of them this is, from 0')
  if not args.distributed:
    return Shard(args.shard or 0, args.num_shards)
  if args.num_shards != 1 or args.shard is not None:
    raise UserError('--distributed finds out the shard by itself; leave --num_shards and --shard')
  return Shard(*join_cluster())
