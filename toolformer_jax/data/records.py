"""The records that flow from corpus to C*, and their format on disk.

Every stage reads and writes JSON Lines, one record a line, keys as the fields below: any stage can
start from a file that somebody else made. Positions are indices into the tokens of the document's
own text (encoded without special tokens); a call is inserted before the token at its position.
Losses are in nats.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args, get_type_hints

from etils import epath

from toolformer_jax import calls
from toolformer_jax.errors import UserError
from toolformer_jax.media.content_type import KINDS
from toolformer_jax.media.table import Medium
from toolformer_jax.runtime.paths import atomic_writer


@dataclass(frozen=True)
class Document:
  """A text of a corpus.

  Attributes:
    id: unique in the corpus.
    text: the text.
    url, title: of its page; None if unknown.
    date: YYYY-MM-DD.
    source: the data set or file.
    media: its pictures, sounds and videos, in the order of their handles, which stand in the text:
      the first picture is `image 1`.
  """

  id: str
  text: str
  url: str | None = None
  title: str | None = None
  date: str | None = None
  source: str | None = None
  media: tuple[Medium, ...] = ()


@dataclass(frozen=True)
class SelectedText:
  """A text in which calls to a tool are sampled.

  Attributes:
    document_id: of the text.
    index: of the text among all texts of the run.
  """

  document_id: str
  index: int


@dataclass(frozen=True)
class Candidate:
  """A call that the model sampled, and the probability that a call starts at its position.

  Attributes:
    document_id: of the text.
    tool, argument: the call.
    position: index of the token that the call comes before.
    probability: of the call's start token there.
    loss_no_call: of the text alone, from the position on; None if sampling did not need it.
  """

  document_id: str
  tool: str
  argument: str
  position: int
  probability: float
  loss_no_call: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class ExecutedCall(Candidate):
  """A candidate with its tool's result, or with the reason why there is none."""

  result: str | None = None
  failure: str | None = None

  def call(self) -> calls.Call:
    """Returns the call as `calls` has it."""
    return calls.Call(self.tool, self.argument, self.result)


# Which loss the gain of a call is measured from, see `ScoredCall`.
BaselineLoss = Literal['min', 'no_call', 'no_result']


@dataclass(frozen=True, kw_only=True)
class ScoredCall(ExecutedCall):
  """An executed call with the three losses of the filter (paper, section 2).

  Without `loss_call`, which was then not needed, the gain is only known to be at most `gain`.

  Attributes:
    loss_no_call: of the text alone.
    loss_call: with the call and an empty result.
    loss_result: with the call and its result.
    baseline: which loss the result has to lower: 'min' of the first two, 'no_call' or 'no_result'.
    char_offset: characters of the text before the call, by which models with another tokenizer find
      its place; None before the call is kept.
  """

  loss_no_call: float = 0.0
  loss_call: float | None = None
  loss_result: float = 0.0
  baseline: str = 'min'
  char_offset: int | None = None

  @property
  def gain(self) -> float:
    """How much the result lowers the weighted loss of the text after the call, in nats."""
    if self.loss_call is None or self.baseline == 'no_call':
      return self.loss_no_call - self.loss_result
    if self.baseline == 'no_result':
      return self.loss_call - self.loss_result
    return min(self.loss_no_call, self.loss_call) - self.loss_result


@dataclass(frozen=True)
class AnnotatedDocument:
  """A document of C* with its kept calls, ordered by position."""

  document: Document
  calls: tuple[ScoredCall, ...]


# Fields by the names that earlier versions wrote.
_RENAMED = {'loss_nothing': 'loss_no_call'}

Record = TypeVar(
    'Record', Document, SelectedText, Candidate, ExecutedCall, ScoredCall, AnnotatedDocument)


def to_json(record: Record) -> dict[str, Any]:
  """Returns `record` as a JSON object; a scored call also shows its gain."""
  if isinstance(record, AnnotatedDocument):
    return {**to_json(record.document), 'calls': [to_json(call) for call in record.calls]}
  fields = dataclasses.asdict(record)
  if isinstance(record, Document):
    media = [{'kind': one.kind, 'path': one.path, 'sha256': one.sha256} for one in record.media]
    # Records of texts without media are as they were before there were any.
    fields = {name: value for name, value in fields.items() if name != 'media'} | (
        {'media': media} if media else {})
  if isinstance(record, Candidate) and (loss_no_call := fields.pop('loss_no_call')) is not None:
    fields['loss_no_call'] = loss_no_call
  if isinstance(record, ScoredCall):
    for name in ('loss_call', 'loss_result', 'baseline'):  # after the first of the losses
      fields[name] = fields.pop(name)
    if (char_offset := fields.pop('char_offset')) is not None:
      fields['char_offset'] = char_offset
    fields['gain'] = None if record.loss_call is None else record.gain
  return fields


def from_json(kind: type[Record], fields: dict[str, Any]) -> Record:
  """Returns the record of `kind` in a JSON object; unknown fields are ignored.

  Raises:
    TypeError: a required field is missing or of another type, or `fields` is not an object.
    ValueError: a position, index or offset is negative, a probability is not between 0 and 1, a
      loss is not a finite number, or a baseline is unknown.
  """
  if not isinstance(fields, dict):
    raise TypeError('not a JSON object')
  if kind is AnnotatedDocument:
    scored = tuple(from_json(ScoredCall, call) for call in fields.get('calls', ()))
    parts: dict[str, Any] = {'document': from_json(Document, fields), 'calls': scored}
    return kind(**parts)
  known = _TYPES[kind]
  fields = {_RENAMED.get(name, name): value for name, value in fields.items()}
  chosen = {name: value for name, value in fields.items() if name in known}
  media = tuple(map(_medium, chosen.pop('media', None) or ()))
  for name, value in chosen.items():
    expected = known[name] | int if known[name] in _NUMBERS else known[name]
    if not isinstance(value, expected) or isinstance(value, bool):
      raise TypeError(f'{name} is {value!r}')
    if known[name] in _NUMBERS and value is not None and not _is_finite(value):
      raise ValueError(f'{name} is {value}')
  for name in ('position', 'index', 'char_offset'):
    if (chosen.get(name) or 0) < 0:
      raise ValueError(f'{name} is {chosen[name]}')
  if chosen.get('baseline', 'min') not in get_args(BaselineLoss):
    raise ValueError(f'baseline is {chosen["baseline"]!r}')
  if not 0 <= chosen.get('probability', 0) <= 1:
    raise ValueError(f'probability is {chosen["probability"]}')
  if media:
    chosen['media'] = media
  return kind(**chosen)


_TYPES: dict[type, dict[str, Any]] = {
    kind: get_type_hints(kind) for kind in Record.__constraints__}
_NUMBERS = (float, float | None)


def _medium(fields: Any) -> Medium:
  """Returns the medium of a JSON object. Raises TypeError or ValueError if it is none."""
  if not isinstance(fields, dict):
    raise TypeError('a medium is not a JSON object')
  kind = next((kind for kind in KINDS if kind == fields.get('kind')), None)
  path, sha256 = fields.get('path'), fields.get('sha256')
  if kind is None or not isinstance(path, str) or not isinstance(sha256, str):
    raise TypeError(f'a medium needs a kind ({", ".join(KINDS)}), a path and a sha256')
  return Medium(kind, path, sha256)


def _is_finite(value: float) -> bool:
  try:
    return math.isfinite(value)
  except OverflowError:  # an int beyond all floats
    return False


def write_records(path: epath.PathLike, records: Iterable[Record]) -> None:
  """Writes `records` to the file `path`, which appears whole or not at all."""
  with atomic_writer(path) as file:
    for record in records:
      file.write(record_line(record))


def record_line(record: Record) -> str:
  """Returns `record` as a line of a file of records."""
  return json.dumps(to_json(record), ensure_ascii=False) + '\n'


def parse_records(data: bytes, kind: type[Record], source: object) -> Iterator[Record]:
  """Yields the records of `kind` in `data`, the content of a file of records.

  Args:
    data: the content.
    kind: of the records.
    source: the file, for errors.

  Raises:
    UserError: `data` is not UTF-8, or a line of it is not such a record.
  """
  try:
    text = data.decode()
  except UnicodeDecodeError as error:
    raise UserError(f'{source} is not UTF-8 ({error})') from error
  for number, line in enumerate(text.removesuffix('\n').split('\n') if text else [], 1):
    try:
      yield from_json(kind, json.loads(line))
    except (ValueError, TypeError, RecursionError) as error:
      raise UserError(f'{source}:{number}: not a {kind.__name__} record ({error})') from error
