"""Where the paper's benchmarks are; puts their files into the folders that evaluation reads."""

import os
import pathlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import filelock

from toolformer_jax.data.download import announce, download, unpack
from toolformer_jax.errors import UserError, unknown

_GITHUB = 'https://raw.githubusercontent.com'
_SVAMP = f'{_GITHUB}/arkilpatel/SVAMP/689d7ccac74b9983a2ac7cc3b264f441b99e7c53'
_GSM8K = f'{_GITHUB}/openai/grade-school-math/master/grade_school_math/data'
_XQUAD = f'{_GITHUB}/google-deepmind/xquad/master'


@dataclass(frozen=True)
class RemoteFile:
  """A file of a benchmark.

  Attributes:
    address: of the official file.
    path: in the folder of the benchmark; of an archive, '' .
    sha256: of the file; '' where nobody has published it.
    unpacked: of an archive, how the paths begin that are taken out; see `download.unpack`.
  """

  address: str
  path: str
  sha256: str = ''
  unpacked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Benchmark:
  """A benchmark of the paper, or one that takes the place of one.

  Attributes:
    name: of the task, and of its folder.
    files: that make it up.
    megabytes: of all files together, about; 0 if that is not known.
    licence: of its content, where it is known.
  """

  name: str
  files: tuple[RemoteFile, ...]
  megabytes: float
  licence: str


# The sums of files on GitHub are those of copies that were checked; the others are published by
# TensorFlow Datasets (mlqa, nq_open, triviaqa, webquestions, xquad) and `datasets` (gsm8k).
BENCHMARKS = {benchmark.name: benchmark for benchmark in (
  Benchmark('lama', (
      RemoteFile('https://dl.fbaipublicfiles.com/LAMA/data.zip', '', unpacked=(
          'data/relations.jsonl', 'data/Squad/', 'data/Google_RE/', 'data/TREx/')),),
      0, 'CC BY-NC 4.0'),
  Benchmark('asdiv', (
      RemoteFile(f'{_GITHUB}/chaochun/nlu-asdiv-dataset/master/dataset/ASDiv.xml', 'ASDiv.xml',
                 'ef8904068482919ac48c8eeaaf6df344b8a308ba66d048c2d4d87eab82dc4929'),),
      1, 'CC BY-NC 4.0'),
  Benchmark('svamp', (
      RemoteFile(f'{_SVAMP}/SVAMP.json', 'SVAMP.json',
                 '5be77703a6d891ae476d7c082787ad361392aa02453b132516cdd5f4e7934e3e'),),
      0.3, 'MIT'),
  Benchmark('mawps', tuple(
      RemoteFile(f'{_SVAMP}/data/cv_mawps/fold{fold}/dev.csv', f'fold{fold}/dev.csv')
      for fold in range(5)),
      0, 'not stated'),
  Benchmark('gsm8k', (
      RemoteFile(f'{_GSM8K}/test.jsonl', 'test.jsonl',
                 '3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14'),
      RemoteFile(f'{_GSM8K}/train.jsonl', 'train.jsonl',
                 '17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465')),
      5, 'MIT'),
  Benchmark('webquestions', (
      RemoteFile('https://worksheets.codalab.org/rest/bundles/0xe7bac352fce7448c9ef238fb0a297ec2'
                 '/contents/blob/', 'test.json',
                 'e3d4550e90660aaabe18458ba34b59f2624857273f375af7353273ce8b84ce6e'),),
      0.4, 'CC BY 4.0'),
  Benchmark('nq_open', (
      RemoteFile(f'{_GITHUB}/google-research-datasets/natural-questions/'
                 'a7a113c9fdc2d9986d624bd43b8a18d6d5779eaa/nq_open/NQ-open.dev.jsonl',
                 'NQ-open.dev.jsonl',
                 'f15567f38099f3615f5b8a685c0aef449c11ad90d3da3735e8d1b98115b40616'),),
      0.4, 'CC BY-SA 3.0'),
  Benchmark('triviaqa', (
      RemoteFile('http://nlp.cs.washington.edu/triviaqa/data/triviaqa-unfiltered.tar.gz', '',
                 '7f0c94207fd0a1eb7bba3d52cdfe0735c98de850b9e5aa4e75f2776ef9a531d0',
                 ('triviaqa-unfiltered/unfiltered-web-dev.json',)),),
      633, 'not stated'),
  Benchmark('mlqa', (
      RemoteFile('https://dl.fbaipublicfiles.com/MLQA/MLQA_V1.zip', '',
                 '246e8089933d13007fe80684d5c5c0713d6834cf8b3b4a0ec7c66f0a0d2baac8',
                 ('MLQA_V1/test/',)),),
      76, 'CC BY-SA 3.0'),
  Benchmark('xquad', tuple(
      RemoteFile(f'{_XQUAD}/xquad.{language}.json', f'xquad.{language}.json', sha256)
      for language, sha256 in {
          'ar': 'abdabd7afed5c635d99cca0f3f0d0c9d9ed0bc77451e963c2e4e0638c29e486d',
          'de': '990b5d746746ed65ed4702ea5f35f99ffa4e2f1c390c07d003642acd937916f9',
          'en': 'e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29',
          'es': 'dcbae93ec3a9f4b9e78fd834a171d6f96c1a875e10e15b7530b7e4ef4971e37e',
          'hi': 'df2cce3532b37e9beb8979704b5c9a4bf874358f105395a298b89427b43b9d24',
          'vi': 'f619a1eb11fb42d3ab0834259e488a65f585447ef6154437bfb7199d85161a04',
          'zh': '691d0b3359bc6b8faa8de931dfdfe21d50a65861ae348e32a0d1a0190b0c8835'}.items()),
      7, 'CC BY-SA 4.0'),
  Benchmark('templama', (
      RemoteFile('https://storage.googleapis.com/gresearch/templama/test.json', 'test.json'),),
      0, 'not stated'),
  Benchmark('wikitext2', (
      RemoteFile('https://wikitext.smerity.com/wikitext-2-v1.zip', '',
                 unpacked=('wikitext-2/wiki.test.tokens',)),),
      4, 'CC BY-SA 3.0'),
)}


def fetch_benchmarks(names: Sequence[str], directory: pathlib.Path) -> None:
  """Puts the files of benchmarks into `directory`, as `evaluate --data_dir` expects them.

  A benchmark whose folder is there is left as it is. A folder appears when it is whole, with the
  sums of the downloaded files in its SHA256SUMS.

  Raises:
    UserError: a name is unknown, a file cannot be downloaded, or has another sha256.
  """
  for name in names:
    if name not in BENCHMARKS:
      raise unknown('benchmark', name, BENCHMARKS)
  for name in names:
    try:
      directory.mkdir(parents=True, exist_ok=True)
      with filelock.FileLock(directory / f'.{name}.lock'):
        _fetch(BENCHMARKS[name], directory / name)
    except OSError as error:
      raise UserError(f'cannot write {directory}: {error}') from error


def _fetch(benchmark: Benchmark, folder: pathlib.Path) -> None:
  if folder.exists():
    announce(f'{folder} is there already')
    return
  announce(f'downloading {benchmark.name}, licence {benchmark.licence} ...')
  partial = folder.with_name(f'.{folder.name}.part')
  downloads, whole = partial / 'downloads', partial / 'whole'
  shutil.rmtree(whole, ignore_errors=True)
  downloads.mkdir(parents=True, exist_ok=True)
  whole.mkdir()
  sums = []
  for number, file in enumerate(benchmark.files):
    downloaded = downloads / str(number)
    sha256 = download(file.address, downloaded, file.sha256)
    if not file.sha256:
      announce(f'sha256 {sha256} of {file.address} was not known before; it is kept in SHA256SUMS')
    sums.append(f'{sha256}  {file.path or file.address.rpartition("/")[2]}\n')
    if file.unpacked:
      unpack(downloaded, whole, file.unpacked)
    else:
      target = whole / file.path
      target.parent.mkdir(parents=True, exist_ok=True)
      shutil.copyfile(downloaded, target)
  (whole / 'SHA256SUMS').write_text(''.join(sums), encoding='utf-8')
  os.rename(whole, folder)
  shutil.rmtree(partial)
