"""Decoding and prefill of one text by models of few bits, beside llama.cpp with the same weights.

    python benchmarks/compressed_models.py [--prefill] [--model_dir runs/compressed]

SmolLM2-135M is written in int8, in int4 and as a GGUF file of the type Q8_0 first, if MODEL_DIR
lacks them. `q8_0` is ours with the file that llama.cpp reads. The memory is the peak of a process
that loads the model and does the work.

    python benchmarks/compressed_models.py --model base=F --model int4=F,int4 --json S

measures models of other folders F instead, in float32 or the dtype after the comma, and compares
them with the first one. With S, `experiments/compression_plot.py` draws how good they are at which
speed.

llama.cpp is optional: pip install xllamacpp
"""

import argparse
import functools
import pathlib
import shutil
import subprocess
import sys

import decoding
import harness
import prefill
import serving

CHECKPOINT = 'smollm2-135m'
Q8_0 = 'q8_0/model.gguf'
LLAMA_CPP = 'llama.cpp q8_0'
# The checkpoint of a model, and the dtype in which ours computes with it.
Model = tuple[str, str]


def main() -> None:
  """Reads the options, writes the models, and runs all sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--prefill', action='store_true', help='of a long prompt, not decoding')
  parser.add_argument('--tokens', type=int, default=96, help='of each text')
  parser.add_argument('--model_dir', type=pathlib.Path, default=pathlib.Path('runs/compressed'))
  parser.add_argument('--model', type=named_model, action='append', metavar='NAME=F[,DTYPE]',
                      help='a model to measure; may be repeated')
  args = parser.parse_known_args()[0]
  if not args.model and '--side' not in sys.argv:
    prepare(args.model_dir)
  models = dict(args.model or prepared(args.model_dir))
  sides = {name: functools.partial(ours, model) for name, model in models.items()}
  if not args.model:
    sides[LLAMA_CPP] = llama_cpp
  first, *others = sides
  pairs = [(name, first) for name in others]
  pairs += [(name, LLAMA_CPP) for name in models if LLAMA_CPP in sides]
  def title(args: argparse.Namespace) -> str:
    what = 'prefill' if args.prefill else 'single-stream decoding'
    which = f' {", ".join(models)}' if args.model else ''
    return f'Compressed models{which}: {what} of {args.tokens} tokens'
  harness.main(title, parser, sides, pairs)


def named_model(text: str) -> tuple[str, Model]:
  """Reads `int4=runs/int4,int4`: a name, a checkpoint, and the dtype to compute in."""
  name, _, checkpoint = text.partition('=')
  checkpoint, comma, dtype = checkpoint.partition(',')
  dtype = dtype if comma else 'float32'
  if not name or not checkpoint or dtype not in harness.DTYPES:
    raise argparse.ArgumentTypeError(f'{text!r} is not of the form NAME=FOLDER[,DTYPE], with a '
                                     f'dtype of {", ".join(harness.DTYPES)}')
  return name, (checkpoint, dtype)


def prepared(folder: pathlib.Path) -> dict[str, Model]:
  """Returns the models that `prepare` writes, after those that they are made of."""
  return {'float32': (CHECKPOINT, 'float32'), 'bfloat16': (CHECKPOINT, 'bfloat16'),
          'int8': (str(folder / 'int8'), 'int8'), 'int4': (str(folder / 'int4'), 'int4'),
          'q8_0': (str(folder / Q8_0), 'bfloat16')}


def prepare(folder: pathlib.Path) -> None:
  """Writes the models that are not there."""
  program = [sys.executable, '-m', 'toolformer_jax']
  def compress(bits: str) -> list[str]:
    return ['compress', f"--gin.CompressionConfig.bits='{bits}'",
            "--gin.CompressionConfig.rounding='nearest'"]
  for name, last_file, command in (
      ('int8', 'compression.json', compress('int8')),
      ('int4', 'compression.json', compress('int4')),
      ('q8_0', 'model.gguf', ['export', '--format', 'gguf', '--quantization', 'q8_0'])):
    if not (folder / name / last_file).exists():
      shutil.rmtree(folder / name, ignore_errors=True)
      subprocess.run([*program, *command, '--checkpoint', CHECKPOINT,
                      '--output_dir', str(folder / name)], check=True, stdout=sys.stderr)


def ours(model: Model, args: argparse.Namespace) -> harness.Run:
  """Decodes, or computes the cache of prompts, by the project's engine."""
  checkpoint, args.dtype = model
  args.rows = args.prompts = 1
  return (prefill if args.prefill else decoding).ours(args, checkpoint)


def llama_cpp(args: argparse.Namespace) -> harness.Run:
  """Does the same by llama.cpp."""
  from toolformer_jax.checkpoints.gguf import GgufFile
  path = args.model_dir / Q8_0
  server, tokenizer = serving.llama_cpp(path, 1, 2048), GgufFile(path).tokenizer()
  args.prompts = 1
  [prompt] = prefill.read(tokenizer, args) if args.prefill else decoding.prompts(tokenizer, 1)
  request = {'prompt': prompt, 'temperature': 0.0, 'cache_prompt': False, 'ignore_eos': True,
             'n_predict': 1 if args.prefill else args.tokens}
  def run(warm_up: bool) -> dict[str, float]:
    server.handle_completions(request)
    return {'tokens': args.tokens}
  return run


if __name__ == '__main__':
  main()
