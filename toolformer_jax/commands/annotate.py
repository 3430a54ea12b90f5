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
from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.commands import options
from toolformer_jax.data import hub_datasets as hosted
from toolformer_jax.data.content_hash import identity
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.cluster import join_cluster
from toolformer_jax.runtime.run_dir import Shard, software_versions

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--corpus', required=True, metavar='F',
                      help='JSON Lines (plain, .gz, .zst) of documents with a `text`, a MediaWiki '
                           'dump (.bz2), a name such as wikipedia-sample or word-problems, '
                           'tfds:NAME[@SPLIT] or hf:NAME[/CONFIG][@SPLIT]')
  options.add_checkpoint(parser)
  options.add_tools(parser)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='D')
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
  from toolformer_jax.annotation import report
  from toolformer_jax.annotation.pipeline import Annotation, ToolPlan
  from toolformer_jax.annotation.prompts import prompt_for
  from toolformer_jax.annotation.run_dir import DOCUMENTS, MERGED, RunFolder
  from toolformer_jax.data.corpus import read_corpus
  from toolformer_jax.runtime.compile_counter import ProgramCounter
  shard = _shard(args)
  seed = [] if args.seed is None else [f'AnnotationConfig.seed = {args.seed}']
  config = options.configuration(args, *seed)
  if not (args.output_dir / DOCUMENTS / '.COMPLETED').exists():
    # Read once before anything is written: a folder is bound to its corpus, and a line that is
    # mended makes another one.
    collections.deque(itertools.islice(read_corpus(args.corpus), _checked(args.corpus)), maxlen=0)
  # First what is quick to refuse: the prompts.
  prompts = {name.lower(): prompt_for(name, config.tool_settings(name).prompt)
             for name in config.toolbox.spelled(args.tools)}
  with options.call_store(args) as store:
    tools = options.tools(args.tools, config, store)
    plans = tuple(ToolPlan(tool, config.tool_settings(tool.name), prompts[tool.name.lower()])
                  for tool in tools)
    model = load_model(args.checkpoint, config.model).frozen()
    annotation = Annotation(model, plans, config.annotation, config.syntax, store)
    described = {**annotation.configuration(), 'checkpoint': identity(args.checkpoint),
                 'corpus': identity(args.corpus)}
    with RunFolder(args.output_dir, described, software_versions(), shard) as folder:
      with folder.exclusively():
        config.save(args.output_dir)
      stages = STAGES if args.stage == 'all' else (args.stage,)
      with ProgramCounter():
        annotation.run(lambda: read_corpus(args.corpus), folder, stages)
      if shard.count > 1 and not folder.is_complete(MERGED):
        print(f'shard {shard.index} of {shard.count} is done; the last one merges and reports')
        return
      summary = report.summary(folder, plans, config.annotation)
      if folder.is_complete(MERGED):
        shown = report.examples(folder, plans, model.tokenizer, config.syntax)
        (args.output_dir / 'report.md').write_text(f'{summary}\n\n{shown}\n', 'utf-8')
      log.info('%s\n', report.time_table(folder, plans))
      print(summary)


def _checked(corpus: str) -> int | None:
  """Returns how many documents are looked at before a run: all, or one that has to be fetched."""
  return 1 if corpus.startswith(hosted.PREFIXES) else None


def _shard(args: argparse.Namespace) -> Shard:
  """Returns which part of the work this process does."""
  if not args.distributed and args.shard is None and args.num_shards != 1:
    raise UserError(f'--num_shards {args.num_shards} needs --shard: which of them this is, from 0')
  if not args.distributed:
    return Shard(args.shard or 0, args.num_shards)
  if args.num_shards != 1 or args.shard is not None:
    raise UserError('--distributed finds out the shard by itself; leave --num_shards and --shard')
  return Shard(*join_cluster())
