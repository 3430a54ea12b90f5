"""Why the filter keeps a call or rejects it: its losses token by token, from the model itself."""

import functools
import itertools
import threading
import urllib.parse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from toolformer_jax.calls import Call
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError
from toolformer_jax.view.data import Run, ShownCall

if TYPE_CHECKING:  # it loads JAX
  from toolformer_jax.annotation.token_losses import TokenLosses

WHY_PATH = '/why'
_FIELDS = 'text', 'position', 'tool', 'argument'
_CACHED = 64  # calls

# From a text, a call with its result and the index of the token that it comes before.
Explain = Callable[[str, Call, int], 'TokenLosses']


class TokenRow(NamedTuple):
  """What the page says of a token; see `TokenLosses`.

  `text` is the characters of the document that are complete with the token.
  """

  token: str
  text: str
  weight: float
  no_call: float | None
  no_result: float
  with_result: float
  gain_share: float
  attention: float


def one_at_a_time(explain: Explain) -> Explain:
  """Returns `explain` for the threads of a server: one asks the model, and once for a call."""
  lock, cached = threading.Lock(), functools.lru_cache(_CACHED)(explain)

  def locked(text: str, call: Call, position: int) -> 'TokenLosses':
    with lock:
      return cached(text, call, position)
  return locked


def why_address(document: Document, call: ShownCall) -> str:
  """Returns the address of the page about a call."""
  return f'{WHY_PATH}?' + urllib.parse.urlencode(dict(zip(_FIELDS, _key(document, call),
                                                          strict=True)))


def find_call(run: Run, fields: str) -> tuple[Document, ShownCall]:
  """Returns the text and the call that the query string of an address names.

  Raises:
    UserError: there is no such call with a result.
  """
  try:
    named = dict(urllib.parse.parse_qsl(fields, keep_blank_values=True, max_num_fields=10))
  except ValueError:
    named = {}
  wanted = tuple(map(named.get, _FIELDS))
  for text in run.texts:
    for call in text.calls:
      if call.result is not None and _key(text.document, call) == wanted:
        return text.document, call
  raise UserError('there is no such call with a result; go back to the run and reload it')


def token_rows(text: str, offsets: Sequence[int], losses: 'TokenLosses') -> list[TokenRow]:
  """Returns a row for each token of `text` from the call on.

  Args:
    text: of the document.
    offsets: for each token the number of characters before it.
    losses: of the tokens.
  """
  texts = [text[start:end] for start, end in itertools.pairwise([*offsets, len(text)])]
  columns = (losses.tokens, texts, losses.weights, losses.no_call, losses.no_result,
             losses.with_result, losses.gain_shares, losses.attention)
  return [TokenRow(*values) for values in list(zip(*columns, strict=True))[losses.position:]]


def _key(document: Document, call: ShownCall) -> tuple[str, ...]:
  """Returns what tells a call from all others, without surrogates, which addresses cannot have."""
  record = call.record
  fields = document.id, str(record.position), record.tool, record.argument
  return tuple(field.encode('utf-8', 'replace').decode() for field in fields)
