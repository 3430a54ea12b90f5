"""How much memory reading a checkpoint takes, beside that of its parameters.

    python benchmarks/import_memory.py --output_dir D [--layers 48]

Writes a random checkpoint of GPT-2 XL's shape (1.56 B parameters, 6.2 GB in float32) to D, in files
as Hugging Face has them, reads it in a process of its own, and prints the largest amount of
anonymous memory that the process had while it read, as a multiple of the parameters' bytes. The
files are mapped: what the system caches of them is not counted.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import threading
import time

import jax
import numpy as np
from safetensors.numpy import save_file
from tokenizers.pre_tokenizers import ByteLevel

from toolformer_jax.checkpoints.families.registry import family_of, write_config
from toolformer_jax.checkpoints.huggingface import load_directory
from toolformer_jax.models.presets import preset
from toolformer_jax.sharding import make_mesh
from toolformer_jax.tokenizer import Tokenizer

_SAMPLE_S = 0.02


def main() -> None:
  """Writes the checkpoint, if it is not there, and measures."""
  parser = argparse.ArgumentParser(description=__doc__,
                                   formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output_dir', required=True, type=pathlib.Path, metavar='D')
  parser.add_argument('--layers', type=int, default=48, metavar='N')
  parser.add_argument('--measure', action='store_true', help='read what is there; prints JSON')
  args = parser.parse_args()
  if args.measure:
    print(json.dumps(measure(args.output_dir)))
    return
  if not (args.output_dir / 'config.json').exists():
    write(args.output_dir, args.layers)
  command = [sys.executable, __file__, '--output_dir', str(args.output_dir), '--measure']
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
  found = json.loads(done.stdout.splitlines()[-1])
  parameters, peak, before = (found[name] / 2**30 for name in ('parameters', 'peak', 'before'))
  print(f'{parameters:.2f} GiB of parameters, read in {found["seconds"]:.0f} s; at most {peak:.2f} '
        f'GiB of anonymous memory on top of {before:.2f} before: {peak / parameters:.2f}x')


def write(path: pathlib.Path, layers: int) -> None:
  """Writes a random checkpoint of GPT-2 XL's shape, a file for each tensor of the table."""
  config = preset('gpt2_1.5b').replace(layers=layers)
  path.mkdir(parents=True, exist_ok=True)
  rng, where = np.random.default_rng(0), {}
  for weight in {weight.name: weight for weight in family_of(config).weights(config)}.values():
    file = f'{len(where):05}.safetensors'
    names = weight.tensor_names(layers)
    save_file({name: rng.random(weight.shape, np.float32) for name in names}, path / file)
    where |= dict.fromkeys(names, file)
  (path / 'model.safetensors.index.json').write_text(json.dumps({'weight_map': where}))
  Tokenizer.byte_level_bpe(sorted(ByteLevel.alphabet()), [], [], split_digits=False, bos_id=None,
                           eos_id=None).export(path, config.max_positions)
  (path / 'config.json').write_text(json.dumps(write_config(config)))


def measure(path: pathlib.Path) -> dict[str, float]:
  """Reads the checkpoint; returns seconds and bytes."""
  mesh, ended, peak = make_mesh(), threading.Event(), [0]
  def watch():
    while not ended.wait(_SAMPLE_S):
      peak[0] = max(peak[0], anonymous())
  before = anonymous()
  thread = threading.Thread(target=watch)
  thread.start()
  start = time.perf_counter()
  model = load_directory(path, mesh)
  seconds = time.perf_counter() - start
  ended.set()
  thread.join()
  parameters = sum(x.nbytes for x in jax.tree.leaves(model.variables))
  return {'seconds': seconds, 'before': before, 'peak': peak[0] - before, 'parameters': parameters}


def anonymous() -> int:
  """Returns the bytes of anonymous memory of this process (Linux)."""
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(re.search(r'RssAnon:\s+(\d+)', status)[1])


if __name__ == '__main__':
  main()
