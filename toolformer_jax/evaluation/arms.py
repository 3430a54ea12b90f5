"""The arms of an evaluation: the models that are compared (paper, 4.1 and footnote 5)."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolformer_jax.errors import UserError, unknown

if TYPE_CHECKING:  # options are read before JAX is loaded
  from toolformer_jax.models.language_model import LanguageModel

TITLES = {'base': 'base', 'cc': '+ CC', 'disabled': 'Toolformer (disabled)',
          'toolformer': 'Toolformer'}
DEFAULT_ARMS = ('disabled', 'toolformer')


@dataclass(frozen=True)
class Arm:
  """A model and how it decodes: a column of the tables.

  Attributes:
    name: 'base' and 'cc' know no calls, 'disabled' never starts a call, 'toolformer' may.
    checkpoint: name or path of the model.
  """

  name: str
  checkpoint: str

  def __post_init__(self) -> None:
    if self.name not in TITLES:
      raise unknown('arm', self.name, TITLES)

  @property
  def calls(self) -> bool:
    """Whether it may call tools."""
    return self.name == 'toolformer'

  @property
  def disabled(self) -> bool:
    """Whether the start of a call has probability 0."""
    return self.name == 'disabled'


def as_arms(arms: 'Mapping[str, str | os.PathLike[str] | LanguageModel] | Sequence[Arm]'
            ) -> 'tuple[list[Arm], dict[str, LanguageModel]]':
  """Returns arms that are given as models by name, and the models that need not be loaded.

  Returns:
    the arms; and the LanguageModels among `arms`, by a label that is the checkpoint of their Arm.
  """
  if not isinstance(arms, Mapping):
    return list(arms), {}
  found, in_memory = [], {}
  for name, model in arms.items():
    checkpoint = str(model)
    if not isinstance(model, str | os.PathLike):
      checkpoint = f'{model.source or "a model in memory"} ({name})'
      in_memory[checkpoint] = model
    found.append(Arm(name, checkpoint))
  return found, in_memory


def read_arms(text: str | None, checkpoint: str | None) -> list[Arm]:
  """Parses `base=C0,toolformer=C2`; a name alone means `checkpoint`.

  Raises:
    UserError: a name is unknown or occurs twice, or has no checkpoint.
  """
  arms = []
  for name, own_checkpoint in parse_arms(text or ','.join(DEFAULT_ARMS)).items():
    if not (chosen := own_checkpoint or checkpoint):
      raise UserError(f'--arms: {name} has no checkpoint; write {name}=C, or give --checkpoint C')
    arms.append(Arm(name, chosen))
  return arms


def parse_arms(text: str) -> dict[str, str]:
  """Parses `base,toolformer=C2`; returns the checkpoint of each arm, '' of a name alone.

  Raises:
    UserError: a name is unknown or occurs twice, or there is none.
  """
  arms: dict[str, str] = {}
  for part in (part.strip() for part in text.split(',') if part.strip()):
    name, _, checkpoint = (piece.strip() for piece in part.partition('='))
    if name not in TITLES:
      raise unknown('arm', name, TITLES)
    if name in arms:
      raise UserError(f'--arms: {name} occurs twice')
    arms[name] = checkpoint
  if not arms:
    raise UserError(f'--arms names no arm; choose from {", ".join(TITLES)}')
  return arms
