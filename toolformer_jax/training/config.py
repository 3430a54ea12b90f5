"""How a model is fine-tuned: the paper's hyper-parameters (section 4) and what it leaves open."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.validation import check


@dataclass(frozen=True)
class FinetuneConfig:
  """Settings of one fine-tuning run; the defaults are the paper's where it states them.

  Attributes:
    steps: updates of the weights.
    batch_rows, row_tokens: rows of one update, and tokens of a row; several texts share a row.
      The paper's batch is 128 sequences of at most 1,024 tokens.
    micro_batches: parts into which the rows of an update are divided, computed one after the other
      and added up. More need less memory and change no number but by rounding.
    loss_tokens: tokens whose logits a device holds at a time, as well.
    remat: recompute all of a block in the backward pass, not only what costs next to nothing: a
      third more work for much less memory.
    seed: of the order of the rows, of dropout and of the adapters' first values.

    lora_rank, lora_alpha: train low-rank adapters of this rank and scale; rank 0 trains all
      parameters, as the paper does.
    mask_results: no loss on the tokens of ` result]`, which at inference are a tool's and not the
      model's. The paper's loss is on all tokens.
    end_of_text: append the end-of-text token to every text.
    dropout: of embeddings and of what each half of a block adds (not stated in the paper).
    z_loss: weight of the squared log-partition function in what is minimised (none in the paper).

    learning_rate: after the warm-up.
    warmup_fraction: share of the steps in which it rises linearly.
    schedule: what it does after that: 'constant' (the paper says no more), 'cosine' or 'linear'.
    final_rate: share of it that a falling schedule ends with.
    weight_decay, beta1, beta2: of AdamW (not stated in the paper).
    first_moment: dtype of AdamW's first moment; 'bfloat16' needs half of its memory.
    max_grad_norm: gradients are scaled down to this global norm (not stated).

    save_every: steps between checkpoints. With dev texts, their perplexity is measured before
      each, and the best one is the result; every 500 steps in the paper.
    keep: how many of the newest checkpoints stay; the best one stays as well.
    patience: end early when the dev perplexity did not fall at this many checkpoints in a row; 0:
      never.
    max_loss_rise: stop with an error when the loss has risen by this many nats over its lowest.
    wandb_project: where Weights & Biases keeps the metrics, if it is installed; '': nowhere.
  """

  steps: int = 2000
  batch_rows: int = 128
  row_tokens: int = 1024
  micro_batches: int = 1
  loss_tokens: int = 1024
  remat: bool = False
  seed: int = 0

  lora_rank: int = 0
  lora_alpha: float = 16.0
  mask_results: bool = False
  end_of_text: bool = True
  dropout: float = 0.0
  z_loss: float = 0.0

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

  def __post_init__(self):
    check(self, steps=(1, 10**9), batch_rows=(1, 10**6), row_tokens=(2, 10**6),
          micro_batches=(1, 10**6), loss_tokens=(1, 10**9), seed=(0, 2**32 - 1),
          lora_rank=(0, 10**4), lora_alpha=(0.0, 1e6), dropout=(0.0, 0.99), z_loss=(0.0, 1.0),
          learning_rate=(0.0, 10.0), warmup_fraction=(0.0, 1.0), final_rate=(0.0, 1.0),
          weight_decay=(0.0, 1.0), beta1=(0.0, 0.99999), beta2=(0.0, 0.99999),
          max_grad_norm=(1e-6, 1e6), save_every=(1, 10**9), keep=(1, 10**6), patience=(0, 10**6),
          max_loss_rise=(0.1, 1e6))
    if self.batch_rows % self.micro_batches:
      raise UserError(f'FinetuneConfig.micro_batches must divide batch_rows: {self.batch_rows} '
                      f'rows make no {self.micro_batches} equal parts')


@dataclass(frozen=True)
class MixtureConfig:
  """Which texts an epoch holds, by the tool that they have calls to.

  Attributes:
    cap: at most this many texts of each tool (25,000 in the paper, appendix B).
    rates: how often an epoch holds each text of a tool, by the tool's name ('text': no calls): 2.0
      is twice, 0.5 every other text; 1.0 by default.
    dev_texts: this many texts (a tenth of all at most) are held out, to choose the best checkpoint
      by; 1,000 in the paper.
    seed: of what is left out and held out.
  """

  cap: int = 25_000
  rates: Mapping[str, float] = field(default_factory=dict)
  dev_texts: int = 1000
  seed: int = 0

  def __post_init__(self):
    check(self, cap=(1, 10**9), dev_texts=(0, 10**9), seed=(0, 2**32 - 1))
    for name, rate in self.rates.items():
      if type(rate) not in (int, float) or not 0 <= rate <= 1000:
        raise UserError(f'MixtureConfig.rates: {name!r} has {rate!r}, which is no number between '
                        '0 and 1000')
