"""What works on this machine: devices, packages, optional features and caches."""

import importlib.metadata
import os
import pathlib
import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

_PACKAGE = 'toolformer_jax'
# What the extras of the package are for; those for work on the package itself are left out.
FEATURES: Mapping[str, str] = {
  'aot': 'plan: compiles for TPUs without one',
  'boards': 'finetune: metrics for TensorBoard and Weights & Biases',
  'data': 'corpora and benchmarks of seqio and TensorFlow Datasets',
  'gcs': 'paths of Google Cloud Storage (gs://)',
  'hf': 'corpora of Hugging Face (hf:NAME)',
  'mcp': 'tools of MCP servers',
  'media': 'pictures, sound and video',
  'nllb': 'mt: the translator of the paper',
  'plots': 'evaluate: plots',
  'privacy': 'finetune: differential privacy',
  'quickstart': 'the corpus word-problems',
  'serve': 'serve',
  'tasks': 'evaluate: metrics of classification and of written texts',
  'torch': "checkpoints in PyTorch's .bin files",
}


@dataclass(frozen=True)
class Package:
  """A package, and which version of it is installed.

  Attributes:
    name: of the package.
    tested: range of the versions that are tested, such as `<0.12,>=0.10.2`; '' for all.
    installed: the installed version; None if there is none.
  """

  name: str
  tested: str
  installed: str | None

  @property
  def fits(self) -> bool:
    """Whether a version in the tested range is installed."""
    return self.installed is not None and SpecifierSet(self.tested).contains(
        self.installed, prereleases=True)


@dataclass(frozen=True)
class Feature:
  """An optional feature.

  Attributes:
    purpose: what it is.
    advice: the command that installs it.
    missing: what it lacks; empty if it works.
  """

  purpose: str
  advice: str
  missing: tuple[str, ...]


@dataclass(frozen=True)
class Cache:
  """A folder whose files can be fetched or made again.

  Attributes:
    purpose: what it holds.
    path: of the folder.
    size: of its files, in bytes.
  """

  purpose: str
  path: pathlib.Path
  size: int


@dataclass(frozen=True)
class Diagnosis:
  """What works on this machine.

  Attributes:
    machine: versions of Python and the system, number of cores.
    devices: what JAX computes on, and what would be better.
    packages: those that every installation needs.
    features: the optional features.
    caches: the caches.
  """

  machine: str
  devices: str
  packages: list[Package]
  features: list[Feature]
  caches: list[Cache]

  @property
  def unfit(self) -> list[Package]:
    """The needed packages that are missing or have an untested version."""
    return [package for package in self.packages if not package.fits]

  def report(self) -> str:
    """Returns the diagnosis as text."""
    lines = [self.machine, self.devices, '', 'packages (tested versions)']
    lines += [f'  {_mark(package.fits)}  {package.name} {package.installed or "is missing"}'
              f'  ({package.tested or "any"})' for package in self.packages]
    lines += ['', 'optional features']
    for feature in self.features:
      lacks = ', '.join(feature.missing)
      advice = f': {feature.advice}  (lacks {lacks})' if lacks else ''
      lines.append(f'  {_mark(not lacks)}  {feature.purpose}{advice}')
    lines += ['', 'caches']
    lines += [f'  {cache.size / 1e6:8,.0f} MB  {cache.path}  ({cache.purpose})'
              for cache in self.caches]
    return '\n'.join(lines)


def diagnose(cache: pathlib.Path) -> Diagnosis:
  """Returns what works on this machine.

  Args:
    cache: the folder of fetched files.
  """
  requirements = [Requirement(text) for text in importlib.metadata.requires(_PACKAGE) or ()]
  packages = [_package(one) for one in requirements if one.marker is None]
  features = [_feature(extra, [one for one in requirements
                               if one.marker and one.marker.evaluate({'extra': extra})])
              for extra in FEATURES]
  apertium = () if shutil.which('apertium') else ('apertium',)
  features.append(Feature('mt: the translator Apertium', 'make apertium', apertium))
  hub = pathlib.Path(os.environ.get('HF_HOME') or '~/.cache/huggingface').expanduser()
  folders = {'models, corpora, search indexes, compiled programs': cache,
             'models and data sets of Hugging Face': hub}
  return Diagnosis(_machine(), _devices(), packages, features,
                   [Cache(purpose, path, _size(path)) for purpose, path in folders.items()])


def _mark(good: bool) -> str:
  return 'ok' if good else '--'


def _machine() -> str:
  return (f'toolformer_jax {importlib.metadata.version(_PACKAGE)}, '
          f'Python {platform.python_version()} on {platform.system()} {platform.machine()}, '
          f'{os.cpu_count()} cores, in {sys.prefix}')


def _devices() -> str:
  """Returns the devices that JAX has; a device that it cannot use is part of the diagnosis."""
  import jax
  try:
    found = jax.local_devices()
  except RuntimeError as error:  # for instance a TPU that another process has
    return f'JAX has no device: {" ".join(str(error).split())}'
  memory = (found[0].memory_stats() or {}).get('bytes_limit')
  size = f' with {memory / 2**30:.0f} GiB' if memory else ''
  text = f'JAX computes on {len(found)} x {found[0].device_kind}{size} ({found[0].platform})'
  if found[0].platform == 'cpu' and shutil.which('nvidia-smi'):
    text += "; this machine has an NVIDIA GPU: pip install 'toolformer_jax[gpu]'"
  if found[0].platform == 'cpu' and pathlib.Path('/dev/accel0').exists():
    text += "; this machine has a TPU: pip install 'toolformer_jax[tpu]'"
  return text


def _package(requirement: Requirement) -> Package:
  try:
    installed = importlib.metadata.version(requirement.name)
  except importlib.metadata.PackageNotFoundError:
    installed = None
  return Package(requirement.name, str(requirement.specifier), installed)


def _feature(extra: str, requirements: list[Requirement]) -> Feature:
  packages = map(_package, requirements)
  missing = tuple(f'{package.name}{package.tested}' for package in packages if not package.fits)
  return Feature(FEATURES[extra], f"pip install 'toolformer_jax[{extra}]'", missing)


def _size(folder: pathlib.Path) -> int:
  """Returns the size of the files in a folder, 0 without it; a link counts as a link."""
  return sum(file.lstat().st_size for file in folder.rglob('*') if not file.is_dir())
