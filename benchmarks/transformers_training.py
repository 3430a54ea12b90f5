"""What a competent user would write to fine-tune with Hugging Face transformers, torch and peft.

Weights and moments are float32, computation is by autocast, attention by torch's fused kernels,
AdamW is the fused one, and batches are padded to their longest sequence.
"""

import torch
from transformers_inference import DEVICE, GPU, Transformers, random_model

from toolformer_jax.models.presets import preset


class Training:
  """A model in training.

  Attributes:
    tokenizer: ours, so that both sides see the same ids; None for random weights.
    config: sizes of the decoder, as ours has them.
  """

  def __init__(self, name: str, dtype: str, lora_rank: int, rate: float, remat: bool):
    """Loads or makes the model."""
    self.tokenizer = None
    if name == 'smollm2-135m':
      loaded = Transformers('float32')
      self.tokenizer, self.config, model = loaded.tokenizer, loaded.config, loaded.model
    else:
      self.config = preset(name)
      model = random_model(self.config)
    if lora_rank:
      model = _with_adapters(model, lora_rank)
    self._model = model.to(DEVICE).train()
    if remat:
      self._model.gradient_checkpointing_enable()
    self._trained = [p for p in self._model.parameters() if p.requires_grad]
    self._optimizer = torch.optim.AdamW(self._trained, rate, weight_decay=0.0, fused=True)
    self._autocast = torch.autocast(DEVICE.type, torch.bfloat16, enabled=dtype == 'bfloat16')

  def step(self, sequences: list[list[int]]) -> None:
    """Does one update on a batch."""
    longest = max(map(len, sequences))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in sequences])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sequences])
    labels = tokens.masked_fill(mask == 0, -100)
    tokens, mask, labels = (x.to(DEVICE) for x in (tokens, mask, labels))
    with self._autocast:
      # Without padding no mask is given: then torch takes its fastest attention.
      full = bool((mask == 1).all())
      loss = self._model(tokens, attention_mask=None if full else mask, labels=labels,
                         use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
    self._optimizer.step()
    self._optimizer.zero_grad(set_to_none=True)
    if GPU:
      torch.cuda.synchronize()


def _with_adapters(model: torch.nn.Module, rank: int) -> torch.nn.Module:
  """Returns the model with adapters on every projection of a block, as ours has them."""
  import peft
  return peft.get_peft_model(model, peft.LoraConfig(
      r=rank, lora_alpha=16, target_modules='all-linear', task_type='CAUSAL_LM'))
