"""The cells of a grid: which experiments are run."""

import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from toolformer_jax.errors import UserError
from toolformer_jax.experiments.config import GridConfig
from toolformer_jax.experiments.experiment import Experiment
from toolformer_jax.experiments.stages import Finetune

UNCHANGED = 'base'  # the name of the ablation that changes nothing


@dataclass(frozen=True)
class Factors:
  """What distinguishes a cell from the others.

  Attributes:
    size: gin file of the model; '' for the run's own checkpoint.
    ablation: gin file of the changed settings; '' for none.
    seed: of what `GridConfig.seeded` names.
  """

  size: str
  ablation: str
  seed: int

  @property
  def group(self) -> tuple[str, str]:
    """The size and the ablation by their names in tables: seeds of a group are averaged."""
    return (pathlib.PurePath(self.size).stem or 'model',
            pathlib.PurePath(self.ablation).stem or UNCHANGED)

  @property
  def folder(self) -> str:
    """The folder of the cell, relative to that of the grid."""
    return '/'.join((*self.group, f'seed{self.seed}'))

  @property
  def source(self) -> str:
    """The gin files that make the cell what it is, for errors; its folder if there are none."""
    return ', '.join(filter(None, (self.size, self.ablation))) or self.folder

  def bindings(self, grid: GridConfig) -> tuple[str, ...]:
    """Returns what the cell adds to the bindings of the run, as gin.

    They make the saved configuration one of this cell alone.
    """
    changed = (f'include {self.ablation!r}',) if self.ablation else ()
    return (*changed, *(f'{name} = {self.seed}' for name in grid.seeded),
            'GridConfig.sizes = ()', 'GridConfig.ablations = ()',
            f'GridConfig.seeds = ({self.seed},)')


@dataclass(frozen=True)
class Cell:
  """An experiment of a grid.

  Attributes:
    factors: what distinguishes it.
    experiment: what is run.
    config_text: gin that gives the same experiment again.
  """

  factors: Factors
  experiment: Experiment
  config_text: str = ''


def factors_of(grid: GridConfig) -> list[Factors]:
  """Returns the factors of every cell; those of a group are neighbours.

  Raises:
    UserError: two sizes or two ablations have the same name.
  """
  found = [Factors(size, ablation, seed)
           for size, ablation in _groups(grid) for seed in grid.seeds]
  folders = [one.folder for one in found]
  if repeated := [name for name in folders if folders.count(name) > 1]:
    raise UserError(f'two cells of the grid would have the folder {repeated[0]}: gin files of '
                    f'sizes and of ablations need different names, and none may be {UNCHANGED}.gin')
  return found


def without_repeated_seeds(cells: Sequence[Cell]) -> list[Cell]:
  """Returns the cells; where nothing is trained, those of the first seed of a group alone."""
  found: dict[object, Cell] = {}
  for cell in cells:
    trained = any(isinstance(stage, Finetune) for stage in cell.experiment.stages())
    found.setdefault(cell.factors if trained else cell.factors.group, cell)
  return list(found.values())


def check_differ(cells: Sequence[Cell]) -> None:
  """Checks that no two cells are the same experiment.

  Raises:
    UserError: a change of one cell has no effect, so that it equals another.
  """
  seen: dict[tuple, Cell] = {}
  for cell in cells:
    same = seen.setdefault(tuple(cell.experiment.evaluations()), cell)
    if same is not cell:
      raise UserError(f'{cell.factors.folder} and {same.factors.folder} are the same experiment: '
                      'what one of them changes is not used, or is set by an option as well')


def _groups(grid: GridConfig) -> Iterator[tuple[str, str]]:
  sizes = grid.sizes or ('',)
  for size in sizes:
    yield size, ''
    if grid.product or size == sizes[0]:
      yield from ((size, ablation) for ablation in grid.ablations)
