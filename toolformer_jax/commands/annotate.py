"""Finds the API calls that help a model to predict a corpus: corpus to C*.

Calls are sampled, executed, filtered and merged (stages sample, execute, filter, merge); what is
done is not done again when the same command is started again. The texts with calls are in
OUTPUT_DIR/merged, the configuration in OUTPUT_DIR/config.gin.
"""

import argparse
import collections
import pathlib

from toolformer_jax.annotation.settings import STAGES
from toolformer_jax.commands import options
from toolformer_jax.runtime import identity, load_model, versions
from toolformer_jax.toolbox import build_tools


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument('--corpus', required=True, metavar='F',
                      help='JSON Lines (plain, .gz, .zst) of documents with a `text`, a MediaWiki '
                           'dump (.bz2), or a name such as wikipedia-sample or word-problems')
  options.add_checkpoint(parser)
  options.add_tools(parser)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='D')
  parser.add_argument('--stage', choices=(*STAGES, 'all'), default='all',
                      help='do only this stage; the ones before must be complete (default: all)')
  parser.add_argument('--seed', type=int, metavar='N', help='of all random choices')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Carries the command out."""
  from toolformer_jax.annotation import report
  from toolformer_jax.annotation.corpus import read_corpus
  from toolformer_jax.annotation.folder import DOCUMENTS, RunFolder
  from toolformer_jax.annotation.pipeline import Annotation, ToolPlan
  from toolformer_jax.programs import ProgramCounter
  seed = [] if args.seed is None else [f'AnnotationSettings.seed = {args.seed}']
  config = options.configuration(args, *seed)
  if not (args.output_dir / DOCUMENTS / '.COMPLETED').exists():
    # Read once before anything is written: a folder is bound to its corpus, and a line that is
    # mended makes another one.
    collections.deque(read_corpus(args.corpus), maxlen=0)
  tools = build_tools(args.tools, config.search)
  plans = tuple(ToolPlan(tool, config.tool_settings(tool.name)) for tool in tools)
  model = load_model(args.checkpoint, config.model).frozen()
  annotation = Annotation(model, plans, config.annotation, config.syntax)
  described = {**annotation.configuration(), 'checkpoint': identity(args.checkpoint),
               'corpus': identity(args.corpus)}
  with RunFolder(args.output_dir, described, versions()) as folder:
    config.save(args.output_dir)
    stages = STAGES if args.stage == 'all' else (args.stage,)
    with ProgramCounter():
      annotation.run(lambda: read_corpus(args.corpus), folder, stages)
    print(report.summary(folder, plans, config.annotation))
