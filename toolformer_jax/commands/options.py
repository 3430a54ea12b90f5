"""Options that several commands share."""

import argparse
import contextlib
import datetime
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from toolformer_jax.checkpoints.names import check_adapter, check_checkpoint
from toolformer_jax.data.corpus import check_corpus
from toolformer_jax.data.dates import parse_iso_date
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.tasks import find_tasks
from toolformer_jax.runtime.cluster import join_cluster
from toolformer_jax.runtime.output_dir import check_output_dir
from toolformer_jax.runtime.paths import as_path
from toolformer_jax.runtime.run_dir import Shard
from toolformer_jax.tools.call_store import CallStore

if TYPE_CHECKING:
  import jax
  from etils import epath

  from toolformer_jax.config.run_config import RunConfig
  from toolformer_jax.models.language_model import LanguageModel


def add_configuration(parser: argparse.ArgumentParser) -> None:
  """Lets a command be configured: `--gin_file`, and `--gin.NAME=VALUE`, which `cli` collects."""
  group = parser.add_argument_group('configuration', description=(
      'Settings are named as in configs/. --gin.NAME=VALUE changes one, for instance\n'
      '--gin.AnnotationConfig.temperature=0.7 or --gin.calculator/ToolConfig.k=20. Strings need\n'
      'quotes of their own: --gin.ModelConfig.dtype="\'bfloat16\'". A gin file can bind options\n'
      "of the command too, in capitals: CHECKPOINT = 'smollm2-135m'."))
  group.add_argument(
      '--gin_file', action='append', default=[], metavar='F',
      help="a gin file: a path, or a file of the package such as quickstart.gin or "
           "models/gptj_6b.gin; may be repeated (default: the paper's settings)")


def add_required(parser: argparse.ArgumentParser, name: str, **details: Any) -> None:
  """Declares an option that has to be given, by the user or by a gin file; see `configuration`."""
  parser.add_argument(f'--{name}', **details)
  parser.set_defaults(required=(*(parser.get_default('required') or ()), name))


def configuration(args: argparse.Namespace, *own: str, first: Sequence[str] = (),
                  implied: Mapping[str, str] | None = None) -> 'RunConfig':
  """Returns the configuration of a command.

  Options that the user gave are bound as macros, so that the saved configuration has them. Options
  that gin files bind and the user did not give are set in `args`.

  Args:
    args: the parsed options.
    own: bindings that the command makes of its other options.
    first: gin files of the command, which those of the user override.
    implied: bindings by the option that makes them, whether the user or a gin file gives it.

  Raises:
    UserError: the configuration is wrong, or an option that is required is missing.
  """
  from toolformer_jax.config.loading import load
  from toolformer_jax.config.registry import RUN_MACROS
  given = [f'{name} = {_plain(value)!r}' for name in RUN_MACROS
           if (value := getattr(args, name.lower(), None)) not in (None, False, [])]
  config = load([*first, *args.gin_file], [*args.bindings, *given, *own], implied)
  for name, value in config.macros.items():
    if hasattr(args, name.lower()):
      setattr(args, name.lower(), as_path(value) if name == 'OUTPUT_DIR' else value)
  _check_required(args)
  _check_values(args, config)
  return config


def _plain(value: Any) -> Any:
  """Returns the value of an option as a gin file has it."""
  return str(value) if isinstance(value, os.PathLike) else value


def _check_required(args: argparse.Namespace) -> None:
  """Raises UserError if an option that was declared by `add_required` is missing."""
  missing = [name for name in getattr(args, 'required', ()) if not getattr(args, name)]
  if missing:
    raise UserError('the following arguments are required: '
                    f'{", ".join(f"--{name}" for name in missing)}; a gin file can bind them as '
                    f'{", ".join(name.upper() for name in missing)}')


def _check_values(args: argparse.Namespace, config: 'RunConfig') -> None:
  """Checks what options name, before JAX, a model or TensorFlow is loaded.

  Raises:
    UserError: a file, a folder, a task or a tool is not there, or cannot be written to.
  """
  checks = {'adapter': check_adapter, 'checkpoint': check_checkpoint, 'corpus': check_corpus,
            'data': _check_sources, 'dev': _check_sources, 'output_dir': check_output_dir,
            'tasks': find_tasks, 'teacher': _check_teacher,
            'tools': config.toolbox.canonical_names}
  for name, check in checks.items():
    if value := getattr(args, name, None):
      check(value)


def _check_teacher(checkpoint: str) -> None:
  """Checks that a teacher is there; errors name its option, because a student is given as well."""
  try:
    check_checkpoint(checkpoint)
  except UserError as error:
    raise UserError(f'--teacher: {error}') from error


def _check_sources(sources: Sequence[str]) -> None:
  """Checks that data for training are there: folders of runs, files, or corpora by name."""
  for source in sources:
    if not as_path(source).is_dir():
      check_corpus(source)


def add_checkpoint(parser: argparse.ArgumentParser, with_adapter: bool = True) -> None:
  """Lets a command take a model, and an adapter for it."""
  if with_adapter:
    add_adapter(parser)
  add_required(
      parser, 'checkpoint', metavar='C',
      help='the model: a Hugging Face directory, hf://org/name, a .gguf file, an output folder of '
           'finetune, or a name such as smollm2-135m')


def add_adapter(parser: argparse.ArgumentParser) -> None:
  """Lets a command take an adapter for its model."""
  parser.add_argument('--adapter', action=_OneAdapter, metavar='D',
                      help='a folder of PEFT or AdapterHub with an adapter for the checkpoint')


class _OneAdapter(argparse.Action):
  """Stores a folder; a second one is an error, because some commands do take several adapters."""

  def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
               option_string: str | None = None) -> None:
    if getattr(namespace, self.dest) is not None:
      parser.error(f'{option_string} occurs twice; evaluate and serve take several adapters')
    setattr(namespace, self.dest, values)


def add_adapters(parser: argparse.ArgumentParser, several: str) -> None:
  """Lets a command take an adapter for its model, or several by name; see `adapters_by_name`.

  Args:
    parser: of the command.
    several: what is done with several adapters, for the help.
  """
  parser.add_argument('--adapter', dest='adapters', action='append', default=[],
                      metavar='[NAME=]D', help=
                      'a folder of PEFT or AdapterHub with an adapter for the checkpoint; with a '
                      f'name, which has no slash, it may be repeated: {several}')
  parser.set_defaults(adapter=None)


def adapters_by_name(args: argparse.Namespace) -> dict[str, str]:
  """Returns the folders of the adapters that have names; sets `args.adapter` to one without.

  An option takes precedence over ADAPTER of a gin file. A name has no slash, so that `runs/rate=3`
  is a folder.

  Raises:
    UserError: one of several adapters has no name, or a name is there twice; or there is no adapter
      in a folder.
  """
  pairs = [one.partition('=') for one in args.adapters]
  named = [bool(equals) and '/' not in name for name, equals, _ in pairs]
  if named == [False]:
    args.adapter, = args.adapters
    check_adapter(args.adapter)
    return {}
  folders: dict[str, str] = {}
  for one, (name, _, folder), has_name in zip(args.adapters, pairs, named, strict=True):
    if not (has_name and name.strip() and folder):
      raise UserError(f'--adapter {one}: each of several adapters needs a name, NAME={one}')
    if name in folders:
      raise UserError(f'--adapter {one}: there is another {name} already; choose another name')
    check_adapter(folder)
    folders[name] = folder
  if folders:
    args.adapter = None
  return folders


def model(args: argparse.Namespace, config: 'RunConfig',
          devices: 'Sequence[jax.Device] | None' = None) -> 'str | LanguageModel':
  """Returns the name of the model; with `--adapter`, the model itself, with the adapter."""
  if not args.adapter:
    return args.checkpoint
  from toolformer_jax import api
  return api.load_model(args.checkpoint, config=config.model, devices=devices,
                        adapter=args.adapter)


def add_tools(parser: argparse.ArgumentParser) -> None:
  """Lets a command take a list of tools."""
  add_required(parser, 'tools', metavar='A,B', type=names,
               help='tools, separated by commas: calculator, calendar, mt, qa, wikisearch, ocr, '
                    'recognize, transcribe, frames, speak, a tool of CustomToolsConfig, or a '
                    'function, my_tools.py:upper')


def add_corpus(parser: argparse.ArgumentParser) -> None:
  """Lets a command take a corpus."""
  add_required(
      parser, 'corpus', metavar='F',
      help='JSON Lines of documents with a `text`; a MediaWiki dump (.xml); either of them plain '
           'or compressed (.gz, .bz2, .xz, .zst); a folder of Markdown or HTML pages; a name that '
           '`fetch` knows, such as wikipedia-sample or word-problems; or a dataset: tfds:NAME, '
           'hf:NAME[/CONFIG], hf:FOLDER or seqio:MODULE:TASK, each with @SPLIT or @SPLIT[:N]')


def names(text: str) -> list[str]:
  """Reads `A,B`."""
  return text.split(',')


def add_call_store(parser: argparse.ArgumentParser) -> None:
  """Lets a command record the results of tools, or replay those of an earlier run."""
  group = parser.add_mutually_exclusive_group()
  group.add_argument('--record', type=path, metavar='F',
                     help='record the results of tools in the file F; calls that are in it are not '
                          'made again')
  group.add_argument('--replay', type=path, metavar='F',
                     help='take all results from F; no tool is needed')


@contextlib.contextmanager
def call_store(args: argparse.Namespace) -> Iterator[CallStore | None]:
  """Opens the store of `--record` or `--replay`; yields None without them."""
  path = args.record or args.replay
  if path is None:
    yield None
    return
  with contextlib.closing(CallStore(path, replay=args.replay is not None)) as store:
    yield store


def add_shards(parser: argparse.ArgumentParser, description: str) -> None:
  """Lets several processes of a command share its work."""
  group = parser.add_argument_group('several processes', description=description)
  group.add_argument('--num_shards', type=int, metavar='N', default=1,
                     help='number of processes (default: 1)')
  group.add_argument('--shard', type=int, metavar='I', help='number of this process, from 0 on')
  group.add_argument('--distributed', action='store_true',
                     help='take both from jax.distributed: on TPU pods, Slurm, or with '
                          'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID')


def shard(args: argparse.Namespace) -> Shard:
  """Returns the shard of this process, which `add_shards` declares."""
  if not args.distributed and args.shard is None and args.num_shards != 1:
    raise UserError(f'--num_shards {args.num_shards} needs --shard, the number of this process, '
                    'which begins with 0')
  if not args.distributed:
    return Shard(args.shard or 0, args.num_shards)
  if args.num_shards != 1 or args.shard is not None:
    raise UserError('--distributed sets the shard; leave out --num_shards and --shard')
  return Shard(*join_cluster())


def training_devices(distributed: bool) -> tuple['Sequence[jax.Device] | None', bool]:
  """Returns the devices to train on, None for those of this process; and whether it is the first.

  The other processes log only warnings.
  """
  if not distributed:
    return None, True
  index, _ = join_cluster()
  if index:
    logging.getLogger('toolformer_jax').setLevel(logging.WARNING)
  import jax
  return jax.devices(), index == 0


def add_date(parser: argparse.ArgumentParser) -> None:
  """Lets a command take the date that the calendar returns."""
  parser.add_argument('--date', type=_date, metavar='YYYY-MM-DD',
                      default=datetime.date.today().isoformat(),
                      help='what the calendar returns (default: today)')


def _date(text: str) -> str:
  if parse_iso_date(text) is None:
    raise UserError(f'--date: {text!r} is not a date of the form 2023-01-30')
  return text


def add_media(parser: argparse.ArgumentParser) -> None:
  """Lets a command take the files that calls name by handles."""
  parser.add_argument('--media', action='append', default=[], type=path, metavar='F',
                      help='a picture, sound or video; the first picture is `image 1` in calls; '
                           'may be repeated')


def path(text: str) -> 'epath.Path':
  """Returns the path that an argument names; a name is needed, . for the working directory."""
  if not text:
    raise UserError('the name of a file or folder is empty; write . for the working directory')
  return as_path(text)


def port(text: str) -> int:
  """Returns the port that an argument names; 0 for any that is free."""
  if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
    raise UserError(f'--port: {text!r} is not a number between 0 and 65535')
  return int(text)
