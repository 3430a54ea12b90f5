"""Chooses the texts of an epoch: held-out texts, a cap and a sampling rate for each tool."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from toolformer_jax.data.augmentation import changed_text
from toolformer_jax.data.content_hash import stable_hash
from toolformer_jax.data.records import AnnotatedDocument
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.training.config import MixtureConfig
from toolformer_jax.training.sources import TaskRow, Text

NO_TOOL = 'text'  # the name of texts without calls in MixtureConfig.rates
_MAX_DEV_FRACTION = 0.1


def hold_out(texts: Sequence[Text], config: MixtureConfig) -> tuple[list[Text], list[Text]]:
  """Splits `texts` into training and dev texts; at most a tenth of them become dev texts."""
  count = min(config.dev_texts, int(_MAX_DEV_FRACTION * len(texts)))
  held_out = set(_shuffled(range(len(texts)), [*map(_id, texts)], f'dev {config.seed}')[:count])
  return ([text for i, text in enumerate(texts) if i not in held_out],
          [text for i, text in enumerate(texts) if i in held_out])


def check_epoch(texts: Sequence[Text], config: MixtureConfig) -> None:
  """Checks that an epoch of `texts` can be built.

  Raises:
    UserError: there is no text, a rate names a tool that no text calls, or there is nothing to
      augment.
  """
  if config.augmentation and not any(
      isinstance(text, TaskRow) and isinstance(text.inputs, str) for text in texts):
    raise UserError('MixtureConfig.augmentation changes the inputs of tasks, and there are none '
                    'that are text')
  if not texts:
    raise UserError('there is no text to train on; lower tau_f, or annotate more texts')
  _check_rates(config, [*map(_tools, texts)])


def check_private_epoch(texts: Sequence[Text], epoch: Sequence[Text]) -> None:
  """Checks that an epoch of `texts` holds each of them once, as privacy demands.

  Raises:
    UserError: two have the same id, or one is repeated or left out.
  """
  for name, count in Counter(map(_id, epoch)).items():
    if count > 1:
      raise UserError(f'the text {name!r} is {count} times in the data: FinetuneConfig.privacy '
                      'needs each text once, with all its calls: no rate above 1, and no '
                      'augmentation')
  if len(epoch) < len(texts):
    raise UserError(f'MixtureConfig leaves out {len(texts) - len(epoch)} of {len(texts)} texts, '
                    'and which ones depends on the others: FinetuneConfig.privacy needs each text '
                    'once; raise cap, and remove rates')


def _check_rates(config: MixtureConfig, tools: Sequence[set[str]]) -> None:
  known = sorted(set().union(*tools))
  for name in config.rates:
    if name not in known:
      raise unknown('tool in MixtureConfig.rates', name, known)


def build_epoch(texts: Sequence[Text], config: MixtureConfig) -> list[Text]:
  """Returns the texts of one epoch: each tool's texts, capped and then repeated by its rate.

  The seed decides which texts a cap or a fractional rate keeps. A text with calls to several tools
  counts as one of the tool that has the fewest texts. The changed copies of a text come after it.

  Raises:
    UserError: see `check_epoch`.
  """
  check_epoch(texts, config)
  repeats: Counter[int] = Counter()
  for tool, capped in epoch_by_tool([(_id(text), _tools(text)) for text in texts], config).items():
    whole, fraction = divmod(config.rates.get(tool, 1.0), 1)
    once_more = set(capped[:round(fraction * len(capped))])
    repeats.update({i: int(whole) + (i in once_more) for i in capped})
  return [copy for i, text in enumerate(texts) for _ in range(repeats[i])
          for copy in (text, *_changed_copies(text, config))]


def _changed_copies(text: Text, config: MixtureConfig) -> Iterator[TaskRow]:
  """Yields the copies of an example of a task whose inputs were changed."""
  if config.augmentation and isinstance(text, TaskRow) and isinstance(text.inputs, str):
    for copy in range(config.augmentation.copies):
      inputs = changed_text(text.inputs, config.augmentation, config.seed, copy)
      if inputs != text.inputs:
        yield dataclasses.replace(text, inputs=inputs)


def epoch_by_tool(texts: Sequence[tuple[str, set[str]]], config: MixtureConfig
                  ) -> dict[str, list[int]]:
  """Returns the indices of the texts of each tool that an epoch has, in a random order.

  Args:
    texts: the id of each text, and the tools that it calls.
    config: the caps.

  Raises:
    UserError: a rate names a tool that no text calls.
  """
  tools = [called for _, called in texts]
  _check_rates(config, tools)
  groups = _by_tool(tools)
  ids = [text_id for text_id, _ in texts]
  return {tool: _shuffled(members, ids, f'{config.seed} {tool}')[:config.cap]
          for tool, members in groups.items()}


def _by_tool(tools: Sequence[set[str]]) -> dict[str, list[int]]:
  """Returns the indices of the texts of each tool."""
  counts = Counter(tool for called in tools for tool in called)
  groups = defaultdict(list)
  for i, called in enumerate(tools):
    groups[min(called, key=lambda tool: (counts[tool], tool))].append(i)
  return groups


def _tools(text: Text) -> set[str]:
  calls = text.calls if isinstance(text, AnnotatedDocument) else ()
  return {call.tool for call in calls} or {NO_TOOL}


def _id(text: Text) -> str:
  return text.document.id if isinstance(text, AnnotatedDocument) else text.id


def _shuffled(members: Collection[int], ids: Sequence[str], salt: str) -> list[int]:
  """Returns `members` in a random order that depends only on `salt` and the texts' ids."""
  return sorted(members, key=lambda i: (stable_hash(salt, ids[i]), i))
