"""Useful floating-point operations of a forward pass: nothing padded, nothing computed twice."""

from toolformer_jax.models.config import DecoderConfig


def forward_flops(config: DecoderConfig, tokens: int, before: int = 0, logits: int = 0) -> int:
  """Returns the operations of `tokens` tokens after `before` others, with `logits` projections.

  Two for each weight of a product and token; causal attention reads what comes before a token.
  """
  c = config
  attention = c.embed_dim * c.head_dim * (2 * c.heads + 2 * c.kv_heads)
  mlp = c.embed_dim * c.mlp_dim * (3 if c.gated_mlp else 2)
  pairs = tokens * before + tokens * (tokens + 1) // 2
  per_layer = 2 * tokens * (attention + mlp) + 4 * pairs * c.heads * c.head_dim
  return c.layers * per_layer + 2 * logits * c.embed_dim * c.vocab_size
