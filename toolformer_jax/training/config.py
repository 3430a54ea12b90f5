"""Settings of fine-tuning: the paper's hyper-parameters (section 4) and those it leaves open."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from toolformer_jax.data.augmentation import AugmentationConfig
from toolformer_jax.errors import UserError
from toolformer_jax.models.adapter_config import AdaLoraConfig, AdapterConfig
from toolformer_jax.models.config import RematPolicy
from toolformer_jax.runtime.validation import check
from toolformer_jax.training.privacy.config import PrivacyConfig
from toolformer_jax.training.recovery.config import DistillationConfig, QatConfig


@dataclass(frozen=True)
class FinetuneConfig:
  """Settings of one fine-tuning run; the defaults are the paper's where it states them.

  Attributes:
    steps: number of updates of the weights.
    epochs: how often each text is learned, in place of `steps`; 0: `steps` counts.
    batch_size, row_tokens: sequences of one update, and the largest number of tokens of each (128
      and 1,024 in the paper). A sequence is a text, or a part of a text that is longer. Those of a
      batch share as few rows of `row_tokens` as hold them.
    batch_rows: packed mode: rows of one update, filled with as many texts as they hold, which are
      several times more than the paper's; 0 for the paper's batches of `batch_size` sequences.
    num_microbatches: number of equal parts of a batch that are computed one after the other; their
      gradients are added up. More need less memory; results change only by rounding.
    loss_tokens: number of tokens whose logits a device holds at a time. Fewer need less memory.
    remat_policy: what of a block is kept for the backward pass, and not recomputed there: the
      outputs of all matrix products ('minimal'); queries, keys and values ('save_qkv_proj'); or
      only its input ('full'). Of GPT-J's step the last two repeat a ninth and a fifth, and keep a
      third and a tenth of what 'minimal' keeps.
    stream_buffer: examples of a stream of seqio that are in memory at a time; they are learned in a
      random order.
    seed: of the order of the rows, of dropout and of the initial adapters.

    adapter: the adapter that is trained, such as LoraConfig(rank=16), in gin @LoraConfig(); with
      None all parameters are trained, as in the paper.
    mask_results: no loss on the tokens of ` result]`, which at inference come from a tool and not
      from the model. In the paper all tokens have a loss.
    end_of_text: append the end-of-text token to every text.
    dropout: rate, for embeddings and for the outputs of attention and MLP (not stated in the
      paper).
    z_loss: coefficient of the squared log-partition function in the objective (0 in the paper).
    label_smoothing: share of the objective in which all tokens of the vocabulary are the target
      alike (Szegedy et al. 2016), for small sets that are learned by heart; 0 in the paper.
    adversarial_epsilon: length of the step by which the embeddings of each text are moved to raise
      its loss (Miyato et al. 2017); the objective is the mean of the losses of the texts as they
      are and so moved. Takes two passes in place of one; 0 in the paper.

    distillation: what the model learns from a teacher, in gin @DistillationConfig(); None for none.
      The teacher is an argument of `finetune`, and --teacher of the command.
    qat: rounds weights in the loss, so that they can be rounded afterwards (quantization-aware
      training), in gin @QatConfig(); None for none. The weights of the result are not rounded.
    keep_zeros: weights of a pruned checkpoint stay zero: those in the matrix products of blocks.
      A checkpoint of few bits also has weights that were rounded to zero; they stay zero too.

    privacy: differential privacy for the texts (DP-SGD), in gin @PrivacyConfig(); None for none. A
      batch is then a Poisson sample: it has each text with the same probability, and `batch_size`
      texts on average. Each text has a row of its own, and `max_loss_rise` has no effect.

    learning_rate: the peak, reached after the warm-up.
    warmup_fraction: fraction of the steps in which the rate rises linearly.
    schedule: of the rate after the warm-up: 'constant' (the paper states no decay), 'cosine' or
      'linear'.
    final_rate: the rate at the end of a decay, as a fraction of the peak.
    weight_decay, beta1, beta2: of AdamW (not stated in the paper). Biases and the scales of norms
      do not decay.
    first_moment: dtype of AdamW's first moment; 'bfloat16' halves its memory.
    max_grad_norm: gradients are scaled down to this global norm (not stated).

    save_every: steps between checkpoints, 500 in the paper. With dev texts, their perplexity is
      measured at each checkpoint, and the best one is the result.
    keep: number of the newest checkpoints that are kept; the best one is kept as well.
    patience: stop when the dev perplexity did not fall for this many checkpoints in a row; 0:
      never.
    max_loss_rise: stop with an error when the average loss has risen by this many nats above its
      lowest value.
    wandb_project: the Weights & Biases project that gets the metrics, if wandb is installed; '' for
      none.
  """

  steps: int = 2000
  epochs: float = 0.0
  batch_size: int = 128
  row_tokens: int = 1024
  batch_rows: int = 0
  num_microbatches: int = 1
  loss_tokens: int = 1024
  remat_policy: RematPolicy = 'minimal'
  stream_buffer: int = 10_000
  seed: int = 0

  adapter: AdapterConfig | None = None
  mask_results: bool = False
  end_of_text: bool = True
  dropout: float = 0.0
  z_loss: float = 0.0
  label_smoothing: float = 0.0
  adversarial_epsilon: float = 0.0
  distillation: DistillationConfig | None = None
  qat: QatConfig | None = None
  keep_zeros: bool = False
  privacy: PrivacyConfig | None = None

  learning_rate: float = 1e-5
  warmup_fraction: float = 0.1
  schedule: Literal['constant', 'cosine', 'linear'] = 'constant'
  final_rate: float = 0.0
  weight_decay: float = 0.0
  beta1: float = 0.9
  beta2: float = 0.999
  first_moment: Literal['float32', 'bfloat16'] = 'float32'
  max_grad_norm: float = 1.0

  save_every: int = 500
  keep: int = 2
  patience: int = 0
  max_loss_rise: float = 3.0
  wandb_project: str = ''

  def __post_init__(self) -> None:
    check(self, steps=(1, 10**9), epochs=(0.0, 1e6), batch_size=(1, 10**6),
          row_tokens=(2, 10**6),
          batch_rows=(0, 10**6), num_microbatches=(1, 10**6), loss_tokens=(1, 10**9),
          stream_buffer=(1, 10**9),
          seed=(0, 2**32 - 1), dropout=(0.0, 0.99), z_loss=(0.0, 1.0),
          label_smoothing=(0.0, 0.99), adversarial_epsilon=(0.0, 1e6),
          learning_rate=(0.0, 10.0), warmup_fraction=(0.0, 1.0), final_rate=(0.0, 1.0),
          weight_decay=(0.0, 1.0), beta1=(0.0, 0.99999), beta2=(0.0, 0.99999),
          max_grad_norm=(1e-6, 1e6), save_every=(1, 10**9), keep=(1, 10**6), patience=(0, 10**6),
          max_loss_rise=(0.1, 1e6))
    if isinstance(self.adapter, AdaLoraConfig) and not self.epochs:
      self.adapter.check_steps(self.steps)
    if self.privacy:
      self._check_privacy()
    if self.qat and self.adapter:
      raise UserError('FinetuneConfig.qat trains all weights: those of a model with an adapter are '
                      'rounded only when it is merged; set FinetuneConfig.adapter to None')
    if self.keep_zeros and self.adapter:
      raise UserError('FinetuneConfig.keep_zeros trains all weights: an adapter would fill the '
                      'zeros when it is merged; set FinetuneConfig.adapter to None')
    if self.batch_rows % self.num_microbatches:
      raise UserError(f'FinetuneConfig.num_microbatches is {self.num_microbatches}, which does not '
                      f'divide batch_rows, {self.batch_rows}')

  def _check_privacy(self) -> None:
    """Checks that all settings fit private training."""
    if self.batch_rows:
      raise UserError('FinetuneConfig.batch_rows packs several texts into a row, which privacy '
                      'does not allow; set it to 0, and batch_size')
    if self.adversarial_epsilon or isinstance(self.adapter, AdaLoraConfig):
      raise UserError('FinetuneConfig.privacy cannot be combined with adversarial_epsilon or with '
                      'AdaLoRA')
    if self.distillation:
      raise UserError('FinetuneConfig.privacy cannot be combined with distillation: set one of '
                      'them to None')
    if not importlib.util.find_spec('jax_privacy'):
      raise UserError('FinetuneConfig.privacy needs: pip install "toolformer_jax[privacy]"')

  def check_has_teacher(self, given: bool) -> None:
    """Raises UserError unless a teacher is given exactly if `distillation` asks for one."""
    if self.distillation and not given:
      raise UserError('FinetuneConfig.distillation needs a teacher: give --teacher, or the '
                      'argument `teacher` of finetune')
    if given and not self.distillation:
      raise UserError('a teacher has no effect without FinetuneConfig.distillation; set it to '
                      'DistillationConfig(), in gin @DistillationConfig()')

  @property
  def has_dropout(self) -> bool:
    """Whether a step draws random numbers for dropout, in the model or in its adapter."""
    return self.dropout > 0 or getattr(self.adapter, 'dropout', 0.0) > 0

  @property
  def batch_items(self) -> int:
    """Number of items of a batch: of rows in packed mode, or else of sequences."""
    return self.batch_rows or self.batch_size

  def with_steps(self, items: int) -> 'FinetuneConfig':
    """Returns this configuration with the `steps` in which `epochs` epochs of `items` are seen.

    Items are rows in packed mode, or else sequences, as those of a batch.
    """
    if not self.epochs:
      return self
    return dataclasses.replace(self, steps=max(1, round(self.epochs * items / self.batch_items)))


@dataclass(frozen=True)
class MixtureConfig:
  """Which texts an epoch holds, by the tool that they call.

  Attributes:
    cap: maximum number of texts of each tool (25,000 in the paper, appendix B).
    rates: number of times that an epoch holds each text of a tool, by the tool's name ('text' for
      texts without calls): 2.0 is twice, 0.5 is every other text; 1.0 by default.
    dev_texts: number of texts that are held out to choose the best checkpoint by (1,000 in the
      paper); at most a tenth of all.
    augmentation: adds changed copies of the inputs of tasks, in gin @AugmentationConfig(); None for
      none. Texts with calls have none, because calls stand at fixed places in them.
    seed: of the random choice of texts to leave out and to hold out, and of changed copies.
  """

  cap: int = 25_000
  rates: Mapping[str, float] = field(default_factory=dict)
  dev_texts: int = 1000
  augmentation: AugmentationConfig | None = None
  seed: int = 0

  def __post_init__(self) -> None:
    check(self, cap=(1, 10**9), dev_texts=(0, 10**9), seed=(0, 2**32 - 1))
    for name, rate in self.rates.items():
      if type(rate) not in (int, float) or not 0 <= rate <= 1000:
        raise UserError(f'MixtureConfig.rates: {name!r} has {rate!r}, which is not a number '
                        'between 0 and 1000')
