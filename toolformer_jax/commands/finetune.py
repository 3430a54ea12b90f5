"""Trains a model on the texts with calls that annotate wrote.

OUTPUT_DIR becomes a self-contained checkpoint: weights (with an adapter, the base model's too),
configuration and tokenizer. If the run is interrupted, the same command continues it.

Examples:
  toolformer finetune --data runs/annotated --checkpoint smollm2-135m \\
      --gin_file quickstart.gin --output_dir runs/tuned
  toolformer finetune --task banking77 --data_dir data --checkpoint smollm2-135m \\
      --gin_file quickstart.gin --output_dir runs/intents
  toolformer finetune --data runs/annotated --checkpoint runs/small --teacher runs/tuned \\
      --gin_file quickstart.gin --output_dir runs/recovered
"""

import argparse

from toolformer_jax.commands import options
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.tasks import trainable_tasks
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  parser.add_argument(
      '--data', nargs='+', action='extend', default=[], metavar='D',
      help='training data: an output folder of annotate, a file of texts with calls (.jsonl), a '
           'corpus (see annotate --help), or seqio:MODULE:NAME[@SPLIT]; several are mixed in '
           'memory, and seqio alone is a stream')
  parser.add_argument('--task', nargs='+', action='extend', default=[], metavar='T',
                      help='train on tasks, mixed with --data if there is any: banking77, '
                           'clinc150, sib200, sst2, ag_news_subset, flores200, scitldr, xsum, '
                           'wnut17, sgd')
  parser.add_argument('--data_dir', metavar='D',
                      help='of --task: D/<task>/ holds the official files (default: data); tfds: '
                           'or tfds:D for sets of TensorFlow Datasets')
  parser.add_argument('--dev', nargs='+', action='extend', default=[], metavar='D',
                      help='data to choose the best checkpoint by; by default '
                           'MixtureConfig.dev_texts of the training texts are held out')
  options.add_checkpoint(parser)
  options.add_required(parser, 'output_dir', type=options.path, metavar='O',
                       help='the folder of the run, which becomes a checkpoint')
  parser.add_argument('--teacher', metavar='C',
                      help='learn from this model too, as DistillationConfig says; it has the '
                           'tokenizer of the checkpoint')
  parser.add_argument('--without_calls', action='store_true',
                      help='train on the same texts without their calls: the baseline "+ CC" of '
                           'the paper')
  parser.add_argument('--distributed', action='store_true',
                      help='train on the devices of all processes of jax.distributed: TPU pods, '
                           'Slurm, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  config = options.configuration(
      args, implied={'TEACHER': 'FinetuneConfig.distillation = @DistillationConfig()'})
  config.finetune.check_has_teacher(bool(args.teacher))
  if not args.data and not args.task:
    raise UserError('there is nothing to train on: give --data, or --task')
  data_dir = args.data_dir or 'data'
  tasks = trainable_tasks(args.task, '--task', data_dir)
  from toolformer_jax import api
  from toolformer_jax.experiments.task_data import task_rows
  rows = [row for task in tasks for row in task_rows(task, data_dir)]
  texts = api.training_data([*args.data, *rows], config.corpus)
  dev = api.as_texts(args.dev, config.corpus) if args.dev else None
  if not isinstance(texts, api.TextStream) and not texts:
    raise UserError(f'{", ".join(args.data)} holds no text with a call, so there is nothing to '
                    'train on; lower tau_f, or annotate more texts')
  devices, is_first = options.training_devices(args.distributed)
  result = api.finetune(
      options.model(args, config, devices), texts, dev=dev, output_dir=args.output_dir,
      teacher=args.teacher, config=config.finetune, mixture=config.mixture,
      model_config=config.model, devices=devices, without_calls=args.without_calls,
      syntax=config.syntax, extra_files={'config.gin': config.text})
  if is_first or not result.finished:
    print_result(result.summary())
