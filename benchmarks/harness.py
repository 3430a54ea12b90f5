"""Runs the sides of a benchmark in turn, each time in a process of its own, and compares them.

A benchmark is a script with some sides, often `ours` and `theirs`; each is a function that gets the
command's options, prepares, and returns the function to be timed. That one is called once to warm
up, so that everything is compiled and loaded, and once on all of the work. What it returns is how
much was done: a dictionary of unit to amount, with 'flops' among them where it is known, and
'seconds' where they are not simply those of the call. A name that ends in '(s)' is a time, which is
shown as it is. With another `--dtype` than float32, ours in float32 is measured as well.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from toolformer_jax.models.language_model import LanguageModel

Run = Callable[[bool], dict[str, float]]  # warm-up or all -> amounts of work
Side = Callable[[argparse.Namespace], Run]
RESULTS = pathlib.Path(__file__).with_name('RESULTS.md')
_PACKAGES = ('jax', 'flax', 'torch', 'transformers')
DTYPES = ('float32', 'bfloat16', 'int8', 'int4')
_FLOAT32 = 'ours_float32'
_SIZES = (2048, 8192)  # of the matrices whose product is timed: on a CPU, on an accelerator
# For both sides. XLA takes its memory anew at every call: small pages, 670,000 of them in a
# training step of SmolLM2-135M, cost it about a tenth of the time.
_HUGE_PAGES = 'glibc.malloc.hugetlb=1'
_MEASURED = ('seconds', 'memory', 'peak_flops', 'flops')


def main(title: Callable[[argparse.Namespace], str], parser: argparse.ArgumentParser,
         sides: Mapping[str, Side], pairs: Sequence[tuple[str, str]] | None = None) -> None:
  """Measures all sides, or the one that `--side` names, and prints Markdown, or JSON of one.

  The ratios are those of `pairs` of sides; by default of each side to `theirs`, and of `ours` to
  ours in float32 if the command has another dtype.
  """
  parser.add_argument('--side', choices=[*sides, _FLOAT32],
                      help='measure this one, here; prints JSON')
  parser.add_argument('--repeats', type=int, default=3, help='of each side (default: 3)')
  parser.add_argument('--record', action='store_true', help=f'put the table into {RESULTS.name}')
  parser.add_argument('--json', type=pathlib.Path, metavar='FILE',
                      help='also write the medians of each side there')
  args = parser.parse_args()
  if args.side == _FLOAT32:
    args.side, args.dtype = 'ours', 'float32'
  if args.side:
    print(json.dumps(_measure(sides[args.side], args)))
    return
  also = [_FLOAT32] if getattr(args, 'dtype', 'float32') != 'float32' and 'ours' in sides else []
  results = {side: [] for side in (*sides, *also)}
  for repeat in range(args.repeats):
    for side in results:
      print(f'{side}, repeat {repeat + 1} of {args.repeats} ...', file=sys.stderr, flush=True)
      results[side].append(_in_process(side))
  devices = {run.pop('device') for runs in results.values() for run in runs}
  if len(devices) > 1:
    raise SystemExit(f'the sides ran on different devices: {", ".join(devices)}')
  if pairs is None:
    pairs = [(side, 'theirs') for side in sides if side != 'theirs']
    pairs += [('ours', side) for side in also]
  middle = {side: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
            for side, runs in results.items()}
  section = report(title(args), args.repeats, middle, *devices, pairs)
  print(section)
  if args.json:
    args.json.write_text(json.dumps(middle, indent=2) + '\n', 'utf-8')
  if args.record:
    record(section)


def add_dtype(parser: argparse.ArgumentParser) -> None:
  """Declares --dtype, for `load` and `their_dtype`."""
  parser.add_argument('--dtype', default='float32', choices=DTYPES)


def in_dtype(args: argparse.Namespace) -> str:
  """Returns the end of a title: nothing for float32; of both sides, if theirs is another one."""
  if args.dtype == 'float32':
    return ''
  theirs = their_dtype(args.dtype)
  return f', {args.dtype}' + (f' (theirs: {theirs})' if theirs != args.dtype else '')


def load(args: argparse.Namespace, checkpoint: str = 'smollm2-135m') -> 'LanguageModel':
  """Returns our model for inference in the dtype of the command."""
  from toolformer_jax.checkpoints.loading import ModelConfig, load_model
  return load_model(checkpoint, config=ModelConfig(dtype=args.dtype)).for_inference()


def their_dtype(dtype: str) -> str:
  """Returns the dtype in which theirs is compared with ours in `dtype`: it has no integers."""
  return 'bfloat16' if dtype in ('int8', 'int4') else dtype


def record(section: str) -> None:
  """Puts a section into RESULTS.md, in place of the one with the same title if there is one."""
  head, *sections = RESULTS.read_text('utf-8').split('\n## ')
  title = section.removeprefix('## ').splitlines()[0]
  others = [old for old in sections if old.splitlines()[0] != title]
  parts = [head.strip(), *(old.strip() for old in [*others, section.removeprefix('## ')])]
  RESULTS.write_text('\n\n## '.join(parts) + '\n', 'utf-8')


def _in_process(side: str) -> dict[str, float]:
  command = [sys.executable, *sys.argv, '--side', side]
  done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True,
                        env={**os.environ, 'GLIBC_TUNABLES': _HUGE_PAGES})
  return json.loads(done.stdout.splitlines()[-1])


def _measure(side: Side, args: argparse.Namespace) -> dict[str, float]:
  """Returns seconds, amounts of work, the peak of memory and of matrix products of this process."""
  run = side(args)
  run(True)
  start = time.perf_counter()
  amounts = run(False)
  seconds = time.perf_counter() - start
  memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts KiB
  dtype = getattr(args, 'dtype', 'float32')
  device, product = _jax_device, _jax_product
  if args.side == 'theirs':
    device, product, dtype = _torch_device, _torch_product, their_dtype(dtype)
  used = {'memory': memory} | device()  # before the product, which would count as memory
  if dtype == 'int4':
    dtype = 'float32'  # that of products; weights alone have 4 bits
  return {'seconds': seconds, **used, 'peak_flops': _peak_flops(*product(dtype)), **amounts}


def _peak_flops(product: Callable[[], None], size: int) -> float:
  """Returns the best floating-point operations per second of a product of square matrices."""
  product()
  times = []
  for _ in range(5):
    start = time.perf_counter()
    product()
    times.append(time.perf_counter() - start)
  return 2 * size**3 / min(times)


def _jax_device() -> dict[str, str | float]:
  """Returns the device's name, and of an accelerator the peak of its own memory in GiB."""
  import jax
  device = jax.devices()[0]
  if device.platform == 'cpu':
    return {'device': 'cpu'}
  return {'device': device.device_kind,
          'memory': device.memory_stats()['peak_bytes_in_use'] / 2**30}


def _torch_device() -> dict[str, str | float]:
  """Returns the same as `_jax_device`."""
  import torch
  if not torch.cuda.is_available():
    return {'device': 'cpu'}
  return {'device': torch.cuda.get_device_name(),
          'memory': torch.cuda.max_memory_allocated() / 2**30}


def _jax_product(dtype: str) -> tuple[Callable[[], None], int]:
  import jax
  import jax.numpy as jnp
  size = _SIZES[jax.default_backend() != 'cpu']
  x = jnp.ones((size, size), dtype)
  # On CPUs, XLA has a fast product of bfloat16 where the result is float32.
  wide = jnp.int32 if dtype == 'int8' else jnp.float32
  multiply = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=wide))
  return lambda: multiply(x).block_until_ready(), size


def _torch_product(dtype: str) -> tuple[Callable[[], None], int]:
  import torch
  gpu = torch.cuda.is_available()
  size = _SIZES[gpu]
  x = torch.ones(size, size, dtype=getattr(torch, dtype), device='cuda' if gpu else 'cpu')
  def multiply():
    torch.matmul(x, x)
    if gpu:
      torch.cuda.synchronize()
  return multiply, size


def report(title: str, repeats: int, middle: Mapping[str, Mapping[str, float]], device: str,
           pairs: Sequence[tuple[str, str]]) -> str:
  """Returns a Markdown section: the medians `middle` of each side, and ratios of pairs of them.

  The machine is part of its title: results of another one stay beside it.
  """
  names = [key for key in next(iter(middle.values())) if key not in _MEASURED]
  units = [name for name in names if not name.endswith('(s)')]
  times = [name for name in names if name.endswith('(s)')]
  header = ['', *(f'{unit} / s' for unit in units), 'peak memory (GiB)', 'share of matmul peak',
            'seconds', *times]
  lines = [header, ['---'] * len(header)]
  lines += [_line(side, m, units) + [f'{m[name]:.3f}' if name in m else '-' for name in times]
            for side, m in middle.items()]
  lines += [_ratio(f'{one} / {other}', middle[one], middle[other], units) + [''] * len(times)
            for one, other in pairs]
  often = f'median of {repeats}' if repeats > 1 else 'once'
  return section(title, often, table(lines), device)


def table(lines: Sequence[Sequence[str]]) -> str:
  """Returns a table of Markdown."""
  return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def section(title: str, often: str, content: str, device: str = 'cpu') -> str:
  """Returns a Markdown section: its title with the machine, the command, and the content."""
  options = [option for option in sys.argv[1:] if option != '--record']
  command = ' '.join(['python', f'benchmarks/{pathlib.Path(sys.argv[0]).name}', *options])
  where = _processor() if device == 'cpu' else device
  return (f'## {title} ({where})\n\n`{command}`, {often}, {time.strftime("%Y-%m-%d")}, '
          f'{_versions()}\n\n{content}\n')


def _line(side: str, m: Mapping[str, float], units: list[str]) -> list[str]:
  peak = f'{m["peak_flops"] / 1e9:.0f} GFLOP/s'
  share = f'{m["flops"] / m["seconds"] / m["peak_flops"]:.0%} of {peak}' if 'flops' in m else '-'
  return [side, *(f'{m[unit] / m["seconds"]:.2f}' for unit in units), f'{m["memory"]:.2f}',
          share, f'{m["seconds"]:.1f}']


def _ratio(name: str, m: Mapping[str, float], theirs: Mapping[str, float], units: list[str]
           ) -> list[str]:
  rates = [m[u] / m['seconds'] / (theirs[u] / theirs['seconds']) for u in units]
  return [name, *(f'**{rate:.2f}x**' for rate in rates),
          f'{m["memory"] / theirs["memory"]:.2f}x', '', '']


def _versions() -> str:
  return ', '.join(f'{name} {importlib.metadata.version(name)}' for name in _PACKAGES)


def _processor() -> str:
  with open('/proc/cpuinfo', encoding='utf-8') as file:
    lines = [line.partition(':')[2].strip() for line in file if line.startswith('model name')]
  return f'{len(lines)} x {lines[0]}' if lines else platform.machine()
