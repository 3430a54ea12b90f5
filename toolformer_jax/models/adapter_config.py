"""Settings of adapters: small sets of weights that are trained in place of the model's own.

An adapter is one of `LoraConfig`, `AdaLoraConfig`, `Ia3Config`, `BottleneckConfig` and
`PrefixConfig`; None is no adapter. Modules have our names: query, key, value, out, gate, up, down.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from toolformer_jax.errors import UserError, unknown
from toolformer_jax.runtime.validation import check

_MAX_RANK = 10**4


@dataclass(frozen=True)
class LoraConfig:
  """Low-rank adapters (Hu et al. 2021): a module adds x A B * alpha / rank to its output.

  Attributes:
    rank: columns of A and rows of B.
    alpha: scale of the product.
    target_modules: names of the modules that get an adapter; empty for all in a block.
    dropout: rate, for the input of the adapter in training; `lora_dropout` of PEFT.
    rank_pattern, alpha_pattern: ranks and scales of single modules, {'down': 4}. They are stored
      as pairs, so that settings can be hashed.
  """

  kind: ClassVar[str] = 'lora'
  rank: int = 16
  alpha: float = 16.0
  target_modules: tuple[str, ...] = ()
  dropout: float = 0.0
  rank_pattern: tuple[tuple[str, int], ...] = ()
  alpha_pattern: tuple[tuple[str, float], ...] = ()

  def __post_init__(self) -> None:
    _make_tuples(self, 'target_modules', 'rank_pattern', 'alpha_pattern')
    check(self, rank=(1, _MAX_RANK), alpha=(0.0, 1e6), dropout=(0.0, 0.99))
    _check_pattern('LoraConfig.rank_pattern', self.rank_pattern, int, 1, _MAX_RANK)
    _check_pattern('LoraConfig.alpha_pattern', self.alpha_pattern, float, 0.0, 1e6)

  def rank_of(self, module: str) -> int:
    """Returns the rank of the adapter of `module`."""
    return dict(self.rank_pattern).get(module, self.rank)

  def scale_of(self, module: str) -> float:
    """Returns what the product of the adapter of `module` is multiplied by."""
    return dict(self.alpha_pattern).get(module, self.alpha) / self.rank_of(module)

  @property
  def named_modules(self) -> tuple[str, ...]:
    """All modules that the settings name."""
    patterns = (*self.rank_pattern, *self.alpha_pattern)
    return (*self.target_modules, *(name for name, _ in patterns))


@dataclass(frozen=True)
class AdaLoraConfig:
  """Low-rank adapters whose ranks are learned (Zhang et al. 2023): x A diag(E) B * alpha / rank.

  All modules begin with `init_rank`. From step `tinit` on the training takes away the least
  important ranks of all modules together, until `target_rank` are left on average, `tfinal` steps
  before the end. The fields are those of PEFT, where `init_rank` is called init_r, `target_rank`
  target_r, and `delta_t` deltaT.

  Attributes:
    init_rank: rank of every module at the beginning.
    target_rank: average rank at the end.
    alpha: scale of the product.
    target_modules: names of the modules that get an adapter; empty for all in a block.
    dropout: rate, for the input of the adapter in training.
    tinit: steps before the first rank is taken away.
    tfinal: steps at the end in which the ranks stay as they are.
    delta_t: steps between two choices of ranks.
    beta1, beta2: of the moving averages of the sensitivity, and of its uncertainty.
    orth_reg_weight: coefficient of the penalty that keeps A and B orthogonal.
  """

  kind: ClassVar[str] = 'adalora'
  init_rank: int = 12
  target_rank: int = 8
  alpha: float = 16.0
  target_modules: tuple[str, ...] = ()
  dropout: float = 0.0
  tinit: int = 0
  tfinal: int = 0
  delta_t: int = 1
  beta1: float = 0.85
  beta2: float = 0.85
  orth_reg_weight: float = 0.5

  def __post_init__(self) -> None:
    _make_tuples(self, 'target_modules')
    check(self, init_rank=(1, _MAX_RANK), target_rank=(1, _MAX_RANK), alpha=(0.0, 1e6),
          dropout=(0.0, 0.99), tinit=(0, 10**9), tfinal=(0, 10**9), delta_t=(1, 10**9),
          beta1=(1e-6, 0.999999), beta2=(1e-6, 0.999999), orth_reg_weight=(0.0, 1e6))
    if self.target_rank > self.init_rank:
      raise UserError(f'AdaLoraConfig.target_rank is {self.target_rank}, which must not be above '
                      f'init_rank, {self.init_rank}')

  def check_steps(self, steps: int) -> None:
    """Checks that a training of `steps` updates has some in which ranks are taken away.

    Raises:
      UserError: it has none.
    """
    if self.tinit + self.tfinal >= steps:
      raise UserError(f'AdaLoraConfig.tinit {self.tinit} and tfinal {self.tfinal} leave no step to '
                      f'choose ranks in: the training has {steps} steps')

  def rank_of(self, module: str) -> int:
    """Returns the number of ranks that the adapter of `module` has room for."""
    del module
    return self.init_rank

  def scale_of(self, module: str) -> float:
    """Returns what the product of the adapter of `module` is multiplied by."""
    return self.alpha / self.rank_of(module)

  @property
  def named_modules(self) -> tuple[str, ...]:
    """All modules that the settings name."""
    return self.target_modules


@dataclass(frozen=True)
class Ia3Config:
  """Learned scales of activations (IA3, Liu et al. 2022).

  Attributes:
    target_modules: names of the modules whose output is scaled, element by element.
    feedforward_modules: those of them whose input is scaled instead.
  """

  kind: ClassVar[str] = 'ia3'
  target_modules: tuple[str, ...] = ('key', 'value', 'down')
  feedforward_modules: tuple[str, ...] = ('down',)

  def __post_init__(self) -> None:
    _make_tuples(self, 'target_modules', 'feedforward_modules')
    check(self)
    if not self.target_modules:
      raise UserError('Ia3Config.target_modules names no module')
    for name in {*self.feedforward_modules} - {*self.target_modules}:
      raise UserError(f'Ia3Config.feedforward_modules has {name}, which is none of the '
                      'target_modules')

  @property
  def named_modules(self) -> tuple[str, ...]:
    """All modules that the settings name."""
    return self.target_modules


@dataclass(frozen=True)
class BottleneckConfig:
  """Small networks on the residual branches: down projection, activation, up projection.

  Attributes:
    placement: 'houlsby' after attention and after the MLP (Houlsby et al. 2019; `DoubleSeqBnConfig`
      of AdapterHub), 'pfeiffer' after the MLP alone, on its sum with the residual stream (Pfeiffer
      et al. 2020; `SeqBnConfig`).
    reduction_factor: the size of the hidden states divided by that of the bottleneck.
    activation: '' for AdapterHub's choice: swish for houlsby, relu for pfeiffer.
  """

  kind: ClassVar[str] = 'bottleneck'
  placement: Literal['houlsby', 'pfeiffer'] = 'pfeiffer'
  reduction_factor: float = 16.0
  activation: Literal['', 'swish', 'relu', 'gelu'] = ''

  def __post_init__(self) -> None:
    check(self, reduction_factor=(1e-3, 1e6))
    if not self.activation:
      object.__setattr__(self, 'activation', 'swish' if self.placement == 'houlsby' else 'relu')

  def size(self, embed_dim: int) -> int:
    """Returns the size of the bottleneck of a model with hidden states of size `embed_dim`."""
    return max(1, int(embed_dim / self.reduction_factor))

  @property
  def named_modules(self) -> tuple[str, ...]:
    """All modules that the settings name: none."""
    return ()


@dataclass(frozen=True)
class PrefixConfig:
  """Prefix tuning (Li and Liang 2021): learned keys and values before every text, in each layer.

  They take as many of the model's positions.

  Attributes:
    num_virtual_tokens: number of learned keys and values of each head.
  """

  kind: ClassVar[str] = 'prefix'
  num_virtual_tokens: int = 20

  def __post_init__(self) -> None:
    check(self, num_virtual_tokens=(1, 10**6))

  @property
  def named_modules(self) -> tuple[str, ...]:
    """All modules that the settings name: none."""
    return ()


@dataclass(frozen=True)
class LoraStackConfig:
  """Several low-rank adapters of one model; each token uses one of them or none. Not trained.

  Their ranks lie side by side in the same arrays: a rank whose adapter a token does not use counts
  as zero for it. Adapters are made into a stack by `models.adapter_stack`.

  Attributes:
    names: of the adapters. Adapter i has the number i + 1; 0 is the model without adapter.
    ranks: the rank of each adapter in each module, {'query': (8, 0)}, stored as pairs.
  """

  kind: ClassVar[str] = 'lora_stack'
  names: tuple[str, ...]
  ranks: tuple[tuple[str, tuple[int, ...]], ...]

  def numbers_of(self, module: str) -> list[int]:
    """Returns the number of the adapter that each rank of `module` belongs to."""
    return [i for i, rank in enumerate(dict(self.ranks)[module], 1) for _ in range(rank)]

  def rank_of(self, module: str) -> int:
    """Returns the sum of the ranks of `module`."""
    return len(self.numbers_of(module))

  def scale_of(self, module: str) -> float:
    """Returns 1: the B of each adapter contains its scale."""
    del module
    return 1.0

  @property
  def named_modules(self) -> tuple[str, ...]:
    """All modules with an adapter."""
    return tuple(dict(self.ranks))


LowRankConfig = LoraConfig | AdaLoraConfig | LoraStackConfig
AdapterConfig = (LoraConfig | AdaLoraConfig | Ia3Config | BottleneckConfig | PrefixConfig
                 | LoraStackConfig)
ADAPTERS: Mapping[str, type[AdapterConfig]] = {
    'lora': LoraConfig, 'adalora': AdaLoraConfig, 'ia3': Ia3Config,
    'bottleneck': BottleneckConfig, 'prefix': PrefixConfig}


def adapter_fields(adapter: AdapterConfig | None) -> dict[str, Any] | None:
  """Returns the settings of an adapter, with its kind, as JSON."""
  return {'kind': adapter.kind, **dataclasses.asdict(adapter)} if adapter else None


def adapter_from_fields(fields: Mapping[str, Any]) -> AdapterConfig:
  """Returns the adapter that `adapter_fields` has made these fields of.

  Raises:
    UserError: there is no such kind of adapter, or a value is wrong.
  """
  kind = str(fields.get('kind'))
  if kind not in ADAPTERS:
    raise unknown('kind of adapter', kind, ADAPTERS)
  return ADAPTERS[kind](**{name: value for name, value in fields.items() if name != 'kind'})


def is_target(adapter: AdapterConfig | None, module: str) -> bool:
  """Returns whether `module` gets weights of `adapter`."""
  match adapter:
    case LoraConfig() | AdaLoraConfig():
      return not adapter.target_modules or module in adapter.target_modules
    case Ia3Config():
      return module in adapter.target_modules
    case LoraStackConfig():
      return module in adapter.named_modules
  return False


def check_modules(adapter: AdapterConfig, modules: Iterable[str]) -> None:
  """Checks that a model with these `modules` has all that `adapter` names.

  Raises:
    UserError: a module is unknown.
  """
  modules = tuple(modules)
  for name in adapter.named_modules:
    if name not in modules:
      raise unknown(f'module of {type(adapter).__name__}', name, modules)


def _make_tuples(config: Any, *names: str) -> None:
  """Turns lists and mappings in these fields into tuples, which can be hashed."""
  for name in names:
    value = getattr(config, name)
    if isinstance(value, Mapping):
      value = tuple(value.items())
    elif isinstance(value, list | tuple):
      value = tuple(tuple(one) if isinstance(one, list) else one for one in value)
    object.__setattr__(config, name, value)
  for name in names:
    value = getattr(config, name)
    if name.endswith('_modules') and not (
        isinstance(value, tuple) and all(isinstance(one, str) for one in value)):
      raise UserError(f"{type(config).__name__}.{name} must be names such as ('query', 'value'), "
                      f'not {value!r}')


def _check_pattern(name: str, pattern: Any, kind: type, lowest: float, highest: float) -> None:
  """Checks that `pattern` has pairs of a module and a number in a range."""
  for pair in pattern:
    if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)
            and type(pair[1]) in (int, kind) and lowest <= pair[1] <= highest):
      raise UserError(f"{name} must be like {{'down': 4}}, with numbers between {lowest} and "
                      f'{highest}; it has {pair!r}')
