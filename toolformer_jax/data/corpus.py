"""Reads a corpus of any format as Documents."""

import dataclasses
import difflib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from etils import epath

from toolformer_jax.data import hub_datasets
from toolformer_jax.data.catalogue import corpus_names, find_corpus
from toolformer_jax.data.content_hash import content_fingerprint, path_sha256, stable_hash
from toolformer_jax.data.dates import document_date, document_url
from toolformer_jax.data.jsonl import read_objects
from toolformer_jax.data.media_files import row_media
from toolformer_jax.data.mediawiki import is_dump, read_pages
from toolformer_jax.data.page_folder import page_files, read_page_folder
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import Medium
from toolformer_jax.runtime.paths import as_path, is_file
from toolformer_jax.runtime.validation import check

log = logging.getLogger(__name__)
_NAME = re.compile(r'[\w-]+')


@dataclass(frozen=True)
class CorpusConfig:
  """How a corpus is read.

  Attributes:
    min_words: shorter paragraphs of a MediaWiki dump are left out.
    repeated_ids: what happens to a document whose id another one has, as some in Dolma: 'refuse'
      is an error, 'number' appends a number to its id, 'drop' leaves it out. Calls refer to their
      document by its id.
    skip_without_text: leave out rows without a text, instead of an error.
    media: read the media of documents. False for JSON Lines whose field `media` is something else.
    alt_texts: keep the alternative texts of pictures on pages of HTML and Markdown.
  """

  min_words: int = 30
  repeated_ids: Literal['refuse', 'number', 'drop'] = 'refuse'
  skip_without_text: bool = False
  # Not in `repr`, on which the hashes of earlier runs depend.
  media: bool = field(default=True, repr=False)
  alt_texts: bool = field(default=True, repr=False)

  def __post_init__(self) -> None:
    check(self, min_words=(1, 100_000))


def read_corpus(corpus: epath.PathLike, config: CorpusConfig = CorpusConfig(),
                limits: MediaLimits = MediaLimits()) -> Iterator[Document]:
  """Yields the documents of a corpus.

  Args:
    corpus: one of
      - JSON Lines, plain or compressed (.gz, .bz2, .xz, .zst). An object has a `text` and may have
        an `id`, `url`, `title`, dates (see `dates.document_date`) and a `source`; fields of C4,
        CCNet and Dolma are understood. A missing id is made of the file's name and the line number.
        `media` is a list of files in the folder of the file or below, as paths relative to it.
      - a folder of pages of HTML or Markdown, see `page_folder`.
      - a MediaWiki dump, .xml or compressed, of which each paragraph is a document.
      - a name that `fetch` knows, such as 'wikipedia-sample'.
      - a dataset, `tfds:NAME`, `hf:NAME[/CONFIG]`, `hf:FOLDER` or `seqio:MODULE:TASK`, each with
        `@SPLIT` or `@SPLIT[:N]`; see `hub_datasets.read_rows`. Its rows are read as the objects of
        JSON Lines are.
    config: how it is read. How many documents it changed or left out is logged at the end. Blank
      texts are always left out.
    limits: what a medium may have.

  Raises:
    UserError: there is no such corpus, it cannot be read, a line is not a document, two documents
      have the same id, or there is no document at all.
  """
  name = str(corpus)
  if name.startswith(hub_datasets.PREFIXES):
    documents = _in_rows(_dataset_rows(name), config, name, limits)
  elif is_dump(path := _locate(name)):
    documents = _paragraphs(path, config.min_words)
  elif path.is_dir():
    pages = read_page_folder(path, alt_texts=config.alt_texts,
                             limits=limits if config.media else None)
    documents = (page for page in pages if page.text)
  else:
    documents = _in_rows(_file_rows(path), config, name, limits)
  is_empty = True
  for document in _with_unique_ids(documents, config, name):
    is_empty = False
    yield document
  if is_empty:
    raise UserError(f'{name} holds no document: each line needs a `text` that is not blank, and '
                    f'each paragraph of a dump {config.min_words} words')


def check_corpus(corpus: str) -> None:
  """Checks that a corpus is there, by its name alone: nothing is read or downloaded.

  Raises:
    UserError: there is no such file, or the package or module that reads it is not installed.
  """
  if corpus.startswith(hub_datasets.PREFIXES):
    hub_datasets.check_installed(corpus)
  elif corpus not in corpus_names() and '://' not in corpus:
    _locate(corpus)


def corpus_hash(corpus: str, config: CorpusConfig = CorpusConfig(),
                limits: MediaLimits = MediaLimits()) -> str:
  """Returns a hash of what the documents depend on: the corpus, and how it is read.

  Args:
    corpus, config: as for `read_corpus`.
    limits: pages leave out media that are larger.

  Raises:
    UserError: there is no such corpus, or it cannot be read.
  """
  content = path_sha256(as_path(corpus)) if _is_folder(corpus) else content_fingerprint(corpus)
  parts = [*([str(config)] if str(config) != str(CorpusConfig()) else []),
           *(f'{name} = False' for name in ('media', 'alt_texts') if not getattr(config, name))]
  if _is_folder(corpus) and limits.max_bytes != MediaLimits().max_bytes:
    parts.append(f'max_bytes = {limits.max_bytes}')
  return stable_hash(content, *parts).hex() if parts else content


def _is_folder(corpus: str) -> bool:
  """Tells whether a corpus is a folder of pages."""
  is_name = corpus.startswith(hub_datasets.PREFIXES) or corpus in corpus_names()
  return not is_name and as_path(corpus).is_dir()


def _with_unique_ids(documents: Iterable[Document], config: CorpusConfig, name: str
                     ) -> Iterator[Document]:
  counts: Counter[str] = Counter()
  num_repeated = 0
  for document in documents:
    document_id = document.id
    if document_id in counts:
      if config.repeated_ids == 'refuse':
        raise UserError(
            f'{name}: two documents have the id {document_id!r}; ids must differ, or set '
            "CorpusConfig.repeated_ids to 'number' or 'drop'")
      num_repeated += 1
      if config.repeated_ids == 'drop':
        continue
      while document_id in counts:
        counts[document.id] += 1
        document_id = f'{document.id}-{counts[document.id]}'
      document = dataclasses.replace(document, id=document_id)
    counts[document_id] += 1
    yield document
  if num_repeated:
    done = 'left out' if config.repeated_ids == 'drop' else 'numbered'
    log.warning('%s: %d documents with the id of an earlier one were %s', name, num_repeated, done)


def _locate(corpus: str) -> epath.Path:
  if found := find_corpus(corpus):
    return found
  path, names = as_path(corpus), corpus_names()
  if _NAME.fullmatch(corpus) and not path.exists():
    raise unknown('file, folder or corpus', corpus, names)
  siblings = [file.name for file in path.parent.glob('*') if is_file(file)]
  near = difflib.get_close_matches(path.name, siblings, n=3, cutoff=0.5)
  hint = f'did you mean {" or ".join(near)}?' if near else f'choose a file, or {", ".join(names)}'
  if path.is_dir() and page_files(path):
    return path
  if path.is_dir():
    raise UserError(f'{path} is a folder without pages of HTML or Markdown; hf:{path} reads the '
                    'JSON Lines in it')
  raise UserError(f'there is no file {path}: {hint}')


class _Row(NamedTuple):
  """The fields of a document, a default for its id, where it is, and the folder of its media."""

  fields: Mapping[str, Any]
  default_id: str
  where: str
  folder: epath.Path | None


def _file_rows(path: epath.Path) -> Iterator[_Row]:
  stem = path.name.split('.')[0]
  for number, fields in read_objects(path):
    yield _Row(fields, f'{stem}-{number:06}', f'{path}:{number}', path.parent)


def _dataset_rows(name: str) -> Iterator[_Row]:
  for number, fields in enumerate(hub_datasets.read_rows(name), 1):
    yield _Row(fields, f'{number:09}', f'{name}, row {number}', None)


def _in_rows(rows: Iterable[_Row], config: CorpusConfig, name: str, limits: MediaLimits
             ) -> Iterator[Document]:
  num_skipped = num_without_folder = 0
  for row in rows:
    document = _document(row.fields, row.default_id)
    if document is None and not config.skip_without_text:
      raise UserError(f'{row.where}: a document needs the field `text`, a string; this one has '
                      f'{", ".join(map(str, row.fields)) or "no field"}. '
                      'CorpusConfig.skip_without_text = True leaves it out')
    if document is None:
      num_skipped += 1
    elif document.text.strip():
      media = _media(row, limits) if config.media else ()
      num_without_folder += config.media and row.folder is None and _names_media(row.fields)
      yield dataclasses.replace(document, media=media) if media else document
  if num_skipped:
    log.warning('%s: %d rows without a text were left out', name, num_skipped)
  if num_without_folder:
    log.warning('%s: the media of %d rows were left out; only a file of JSON Lines, read by its '
                'path, has a folder in which they are', name, num_without_folder)


def _names_media(fields: Mapping[str, Any]) -> bool:
  media = fields.get('media')
  return isinstance(media, list) and len(media) > 0


def _media(row: _Row, limits: MediaLimits) -> tuple[Medium, ...]:
  if row.folder is None:
    return ()
  try:
    return row_media(row.fields, row.folder, row.where, limits)
  except UserError as error:
    raise UserError(f'{error}; CorpusConfig.media = False ignores the field') from error


def _document(fields: Mapping[str, Any], default_id: str) -> Document | None:
  """Returns the document of an object as C4, CCNet or Dolma have it; None if it has no text.

  CCNet calls the text `raw_content`; Dolma keeps URL and title in `metadata`.
  """
  text = fields.get('text', fields.get('raw_content'))
  if not isinstance(text, str):
    return None
  metadata = fields.get('metadata')
  own = {name: value for name, value in fields.items() if value is not None}
  known = {**(metadata if isinstance(metadata, Mapping) else {}), **own}
  return Document(
      id=_string(fields.get('id')) or default_id, text=text, url=document_url(fields),
      title=_string(known.get('title')), date=document_date(fields),
      source=_string(fields.get('source')))


def _string(value: Any) -> str | None:
  """Returns a field as a string; None if it is missing, empty, or neither string nor number."""
  return str(value) if isinstance(value, str | int | float) and value != '' else None


def _paragraphs(path: epath.Path, min_words: int) -> Iterator[Document]:
  for page in read_pages(path):
    for number, paragraph in enumerate(page.text.split('\n\n')):
      if len(paragraph.split()) >= min_words:
        yield Document(
          id=f'{page.title}-{number}', text=paragraph, title=page.title, source=path.name
        )
