"""Which texts an epoch holds: some are held out, and tools have caps and rates."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from toolformer_jax.data.records import AnnotatedDocument
from toolformer_jax.errors import unknown
from toolformer_jax.training.config import MixtureConfig
from toolformer_jax.training.data import TaskRow

Text = AnnotatedDocument | TaskRow
WITHOUT_CALLS = 'text'

_LARGEST_DEV = 0.1  # of all texts


def hold_out(texts: Sequence[Text], settings: MixtureConfig) -> tuple[list[Text], list[Text]]:
  """Returns the texts to train on and those to choose a checkpoint by: a tenth of all at most."""
  count = min(settings.dev_texts, int(_LARGEST_DEV * len(texts)))
  held_out = set(_shuffled(range(len(texts)), texts, f'dev {settings.seed}')[:count])
  return ([text for i, text in enumerate(texts) if i not in held_out],
          [text for i, text in enumerate(texts) if i in held_out])


def mixture(texts: Sequence[Text], settings: MixtureConfig) -> list[Text]:
  """Returns the texts of an epoch by caps and rates; which ones is random by the seed.

  A text with calls to several tools counts for the one that the fewest texts have.

  Raises:
    UserError: a rate is given for a tool that no text has a call to.
  """
  groups = _by_tool(texts)
  for name in settings.rates:
    if name not in groups:
      raise unknown('tool in MixtureConfig.rates', name, groups)
  chosen = Counter()
  for tool, members in groups.items():
    capped = _shuffled(members, texts, f'{settings.seed} {tool}')[:settings.cap]
    times, share = divmod(settings.rates.get(tool, 1.0), 1)
    more = set(capped[:round(share * len(capped))])
    chosen.update({i: int(times) + (i in more) for i in capped})
  return [text for i, text in enumerate(texts) for _ in range(chosen[i])]


def _by_tool(texts: Sequence[Text]) -> dict[str, list[int]]:
  """Returns the indices of the texts of each tool."""
  tools = [_tools(text) for text in texts]
  counts = Counter(tool for some in tools for tool in some)
  groups = defaultdict(list)
  for i, some in enumerate(tools):
    groups[min(some, key=lambda tool: (counts[tool], tool))].append(i)
  return groups


def _tools(text: Text) -> set[str]:
  calls = text.calls if isinstance(text, AnnotatedDocument) else ()
  return {call.tool for call in calls} or {WITHOUT_CALLS}


def _shuffled(members: Collection[int], texts: Sequence[Text], salt: str) -> list[int]:
  """Returns `members` in an order that depends on `salt` and the texts' ids."""
  def draw(i: int) -> tuple[bytes, int]:
    text = texts[i]
    name = text.document.id if isinstance(text, AnnotatedDocument) else text.id
    return hashlib.sha256(f'{salt} {name}'.encode()).digest(), i
  return sorted(members, key=draw)
