"""The whole paper with the gin file of GPT-2 774M, on 20 documents, by a random model.

    python experiments/dry_run.py --output_dir D

Annotates with all five tools, fine-tunes all arms, and makes every table and figure in one report,
OUTPUT_DIR/all/all.md: what would fail after days on the real data fails here. Its scores mean
nothing. The random checkpoint has the shape of GPT-2 774M in float32 (3 GB; fine-tuning needs 16 GB
of memory); --layers and --width make it smaller, with the same positions and the same vocabulary.
What is done is not done again. The tools QA and MT answer by SmolLM2-135M.
"""

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from dry_run_inputs import save_random_checkpoint, write_corpus, write_pages, write_questions

from toolformer_jax import cli
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.corpus_parts import DEV, TRAIN, divide_corpus
from toolformer_jax.errors import UserError
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.presets import preset
from toolformer_jax.runtime.output_dir import check_output_dir

SIZE = 'gpt2_774m'
TOOLS = 'calculator,calendar,mt,qa,wikisearch'
DOCUMENTS, HELD_OUT = 20, 2
# A random model finds calls unlikely and useless: the thresholds let everything pass.
EVERY_CALL = [f'{tool}/ToolConfig.{name}={value}' for tool in TOOLS.split(',')
              for name, value in (('tau_s', 0.0), ('k', 1), ('m', 8), ('tau_f', -10.0))]
ANNOTATION = [*EVERY_CALL, 'AnnotationConfig.force_name=True',
              'AnnotationConfig.max_call_tokens=16']
TRAINING = ['FinetuneConfig.steps=2', 'FinetuneConfig.batch_size=2', 'FinetuneConfig.save_every=1',
            'FinetuneConfig.row_tokens=256']
ASKING = ['EvaluationConfig.tokens_per_word=1', 'EvaluationConfig.number_tokens=4',
          'GenerationConfig.max_call_tokens=16', 'EngineConfig.slots=4']


def main() -> None:
  """Runs all stages and prints the report."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output_dir', type=pathlib.Path, required=True, metavar='D')
  parser.add_argument('--layers', type=int, default=36, metavar='N', help='default: %(default)s')
  parser.add_argument('--width', type=int, default=1280, metavar='N',
                      help='of the embeddings, a multiple of 64 (default: %(default)s)')
  args = parser.parse_args()
  config = shape(args.layers, args.width)
  check_output_dir(args.output_dir)
  folder = args.output_dir
  args.gin_file = [f'models/{SIZE}.gin']
  args.bindings = [f"SearchConfig.corpus='{folder / 'pages.jsonl'}'",
                   "MtConfig.translator='few_shot'"]
  write_inputs(folder, config)
  annotate_and_finetune(args, folder)
  script = pathlib.Path(__file__).with_name('all.py')
  run_process(script.name, [sys.executable, str(script), *report_options(args, folder)])
  print((folder / 'all' / 'all.md').read_text('utf-8'))


def shape(layers: int, width: int) -> DecoderConfig:
  """Returns GPT-2 774M's decoder with other numbers of layers and dimensions.

  Raises:
    UserError: there is no such decoder.
  """
  if layers < 1 or width < 128 or width % 64:
    raise UserError('--layers must be at least 1, and --width a multiple of 64 from 128 on')
  return preset(SIZE).replace(layers=layers, embed_dim=width, heads=width // 64,
                              kv_heads=width // 64, mlp_dim=4 * width)


def write_inputs(folder: pathlib.Path, config: DecoderConfig) -> None:
  """Writes the checkpoint, the parts of the corpus, the pages and the questions."""
  folder.mkdir(parents=True, exist_ok=True)
  write_corpus(folder / 'c.jsonl', DOCUMENTS + 2 * HELD_OUT)
  divide_corpus(lambda: read_corpus(folder / 'c.jsonl'), folder / 'data', dev=HELD_OUT,
                test=HELD_OUT)
  write_pages(folder / 'pages.jsonl')
  write_questions(folder / 'data')
  if not (folder / 'base' / 'config.json').is_file():  # it is written last
    save_random_checkpoint(folder / 'base', config)


def annotate_and_finetune(args: argparse.Namespace, folder: pathlib.Path) -> None:
  """Annotates with all tools, and trains Toolformer, the arm "+ CC", and the model of figure 4."""
  base = f'--checkpoint={folder / "base"}'
  toolformer(args, ANNOTATION, 'annotate', f'--corpus={folder / "data" / TRAIN}', base,
             f'--tools={TOOLS}', f'--output_dir={folder / "calls"}')
  arms: dict[str, tuple[Sequence[str], Sequence[str]]] = {
      'toolformer': ((), ()), 'cc': (('--without_calls',), ()),
      'three_tools': ((), ("MixtureConfig.rates={'Calendar': 0.0, 'MT': 0.0}",))}
  for arm, (options, bindings) in arms.items():
    toolformer(args, [*TRAINING, *bindings], 'finetune', f'--data={folder / "calls"}',
               f'--dev={folder / "data" / DEV}', base, f'--output_dir={folder / arm}', *options)


def toolformer(args: argparse.Namespace, bindings: Sequence[str], *command: str) -> None:
  """Runs a command with the gin files and bindings of `args`, and more bindings.

  Raises:
    UserError: the command fails.
  """
  run_process(f'toolformer {command[0]}', [
      sys.executable, '-m', 'toolformer_jax', *command,
      *(f'--gin_file={file}' for file in args.gin_file),
      *(f'--gin.{binding}' for binding in (*args.bindings, *bindings))])


def run_process(name: str, command: Sequence[str]) -> None:
  """Runs a process.

  Raises:
    UserError: its exit code is not 0; the error calls it `name`.
  """
  if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
    raise UserError(f'{name} failed, see above; the same command continues from here')


def report_options(args: argparse.Namespace, folder: pathlib.Path) -> list[str]:
  """Returns the options of the script that makes all tables."""
  tuned = folder / 'toolformer'
  arms = {'base': folder / 'base', 'cc': folder / 'cc', 'disabled': tuned, 'toolformer': tuned}
  return ['--arms', ','.join(f'{arm}={path}' for arm, path in arms.items()),
          f'--data_dir={folder / "data"}', f'--checkpoint={tuned}', f'--tools={TOOLS}',
          f'--run={folder / "calls"}', '--sizes', f'774={folder / "three_tools"}',
          '--limit=12', f'--output_dir={folder / "all"}',
          *(f'--gin_file={file}' for file in args.gin_file),
          *(f'--gin.{binding}' for binding in (*args.bindings, *ASKING))]


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
