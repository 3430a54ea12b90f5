"""A small decoder with random weights and a token for every byte, for runs that test no model."""

import pathlib

import jax
import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from toolformer_jax import sharding
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.language_model import LanguageModel, abstract_variables, make_decoder
from toolformer_jax.tokenizer import Tokenizer

_END = '<|endoftext|>'


def tiny_tokenizer() -> Tokenizer:
  """Returns a tokenizer with a token for every byte, and the start and arrow of a call."""
  tokens = [*sorted(ByteLevel.alphabet()), 'Ġ[', '->', _END]
  return Tokenizer.byte_level_bpe(tokens, [('Ġ', '['), ('-', '>')], [_END], split_digits=True,
                                  bos_id=None, eos_id=tokens.index(_END))


def tiny_model(max_positions: int = 256) -> LanguageModel:
  """Returns a model of the Llama family: two layers, 32 dimensions."""
  tokenizer = tiny_tokenizer()
  config = DecoderConfig(
      vocab_size=tokenizer.vocab_size, layers=2, embed_dim=32, heads=4, kv_heads=2, head_dim=8,
      mlp_dim=64, max_positions=max_positions, rotary_dim=8)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  rng = np.random.default_rng(0)
  def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    return rng.normal(leaf.ndim < 3 and leaf.shape[-1] == 32, 0.1, leaf.shape).astype(np.float32)
  shapes = sharding.unbox(abstract_variables(make_decoder(mesh, config)))
  return LanguageModel.from_variables(config, jax.tree.map(draw, shapes), tokenizer, mesh)


def save_tiny_model(path: pathlib.Path, max_positions: int = 256) -> pathlib.Path:
  """Writes such a model as a Hugging Face directory and returns its path."""
  save_directory(path, tiny_model(max_positions))
  return path
