"""Settings of an experiment and of a grid of experiments."""

from dataclasses import dataclass

from toolformer_jax.compression.config import CompressionConfig
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.validation import check
from toolformer_jax.training.config import FinetuneConfig


@dataclass(frozen=True)
class ExperimentConfig:
  """What an experiment does besides its stages' own settings.

  Attributes:
    title: of its report.
    rounds: how often the corpus is annotated: from the second round on by the model that was tuned
      in the round before (the paper suggests it in section 7). The last round's calls are learned.
      0: no model is tuned.
    train_tasks: tasks whose training splits are learned besides the texts with calls, such as
      'banking77'; their files are in the folder of the evaluation.
    evaluation_tools: the tools that Toolformer may call in the evaluation, if they are not those of
      the training.
    calibration: a corpus for models that `CompressionConfig` makes smaller: calibration texts, and
      texts of the recovery.
    recovery: how compressed models are trained again, in gin @recovery/FinetuneConfig(), on the
      texts of the training and of `calibration`; None for not at all. With `distillation`, the
      teacher is the model before the compression.
  """

  title: str = 'Experiment'
  rounds: int = 1
  train_tasks: tuple[str, ...] = ()
  evaluation_tools: tuple[str, ...] = ()
  calibration: str = ''
  recovery: FinetuneConfig | None = None

  def __post_init__(self) -> None:
    check(self, rounds=(0, 100))


@dataclass(frozen=True)
class GridConfig:
  """The experiments of a grid: sizes x ablations x seeds.

  Attributes:
    sizes: gin files of models, such as 'models/gpt2_774m.gin'; () for the run's own checkpoint.
    ablations: gin files that change a few settings. The unchanged experiment is always among the
      cells.
    seeds: seeds of the training.
    seeded: the settings that a seed is bound to. With 'SEED' every stage is repeated for each seed;
      with 'FinetuneConfig.seed', the default, all seeds learn the same calls.
    product: combine every size with every ablation. Otherwise one factor is changed at a time: the
      ablations are run with the first size alone.
  """

  sizes: tuple[str, ...] = ()
  ablations: tuple[str, ...] = ()
  seeds: tuple[int, ...] = (0,)
  seeded: tuple[str, ...] = ('FinetuneConfig.seed',)
  product: bool = False

  def __post_init__(self) -> None:
    check(self)
    for name in ('sizes', 'ablations', 'seeds', 'seeded'):
      values, kind = getattr(self, name), int if name == 'seeds' else str
      if not all(type(value) is kind for value in values) or len({*values}) < len(values):
        raise UserError(f'GridConfig.{name} must have different values of type {kind.__name__}, '
                        f'not {values!r}')
    if not self.seeds or not self.seeded:
      raise UserError('GridConfig needs at least one seed, and a setting that it is bound to')


def check_recovery(recovery: FinetuneConfig, compression: CompressionConfig) -> None:
  """Raises UserError if the training of a compressed model would undo or miss its compression."""
  if compression.is_neutral:
    raise UserError('ExperimentConfig.recovery has no effect: CompressionConfig removes nothing')
  if compression.sparsity and not recovery.keep_zeros:
    raise UserError('the recovery would fill the zeros of CompressionConfig.sparsity: bind '
                    'recovery/FinetuneConfig.keep_zeros = True')
  if recovery.keep_zeros and not compression.sparsity:
    raise UserError('recovery/FinetuneConfig.keep_zeros has no effect without '
                    'CompressionConfig.sparsity')
  if recovery.qat and compression.bits == 'mixed':
    raise UserError("recovery/FinetuneConfig.qat cannot train for CompressionConfig.bits 'mixed': "
                    "which layers have 4 bits is chosen after the training; take 'int4' or 'int8', "
                    'or leave qat out')
  if qat := recovery.qat:
    wanted = qat.bits, qat.group_size, 'nearest'
    found = compression.bits, compression.group_size, compression.rounding
    if wanted != found:
      raise UserError(f'recovery/FinetuneConfig.qat trains for {wanted}, and CompressionConfig has '
                      f'{found}: bits, group_size and rounding must be the same')
