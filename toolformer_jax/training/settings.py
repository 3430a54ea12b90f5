"""How a model is fine-tuned: the paper's hyper-parameters (section 4) and what it leaves open."""

from dataclasses import dataclass

from toolformer_jax.settings import check


@dataclass(frozen=True)
class FinetuneSettings:
  """Settings of one fine-tuning run; the defaults are the paper's where it states them.

  Attributes:
    steps: updates of the weights.
    batch_rows, row_tokens: rows of one update, and tokens of a row; several texts share a row.
      The paper's batch is 128 sequences of at most 1,024 tokens.
    learning_rate: after the warm-up.
    warmup_fraction: share of the steps in which it rises linearly.
    weight_decay, beta1, beta2: of AdamW (not stated in the paper).
    clip_norm: gradients are scaled down to this global norm (not stated).
    lora_rank, lora_alpha: train low-rank adapters of this rank and scale; rank 0 trains all
      parameters, as the paper does.
    mask_results: no loss on the tokens of ` result]`, which at inference are a tool's and not the
      model's. The paper's loss is on all tokens.
    end_of_text: append the end-of-text token to every text.
    seed: of the order of the rows and of the adapters' first values.
    save_every: steps between checkpoints.
    keep: how many of the newest checkpoints stay.
    remat: recompute activations in the backward pass: half of the memory for a little more work.
  """

  steps: int = 2000
  batch_rows: int = 128
  row_tokens: int = 1024
  learning_rate: float = 1e-5
  warmup_fraction: float = 0.1
  weight_decay: float = 0.0
  beta1: float = 0.9
  beta2: float = 0.999
  clip_norm: float = 1.0
  lora_rank: int = 0
  lora_alpha: float = 16.0
  mask_results: bool = False
  end_of_text: bool = True
  seed: int = 0
  save_every: int = 500
  keep: int = 2
  remat: bool = False

  def __post_init__(self):
    check(self, steps=(1, 10**9), batch_rows=(1, 10**6), row_tokens=(2, 10**6),
          learning_rate=(0.0, 10.0), warmup_fraction=(0.0, 1.0), weight_decay=(0.0, 1.0),
          beta1=(0.0, 0.99999), beta2=(0.0, 0.99999), clip_norm=(1e-6, 1e6), lora_rank=(0, 10**4),
          lora_alpha=(0.0, 1e6), seed=(0, 2**32 - 1), save_every=(1, 10**9), keep=(1, 10**6))
