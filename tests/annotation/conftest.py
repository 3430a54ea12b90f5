"""A decoder that is small enough to train in a test, and its tokenizer."""

import jax
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from toolformer_jax import sharding
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.tokenizer import Tokenizer

END = '<|endoftext|>'


@pytest.fixture(scope='session')
def tokenizer():
  """A token for every byte, and two that merges make."""
  tokens = [*sorted(ByteLevel.alphabet()), 'Ġ[', '->', END]
  return Tokenizer.byte_level_bpe(tokens, [('Ġ', '['), ('-', '>')], [END], split_digits=True,
                                  bos_id=None, eos_id=tokens.index(END))


@pytest.fixture(scope="session")
def make_model(tokenizer):
  """Returns a function from changes of a configuration, and a mesh, to a random model."""
  def make(mesh=None, **changes):
    mesh = sharding.make_mesh(devices=jax.devices()[:1]) if mesh is None else mesh
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size, layers=2, embed_dim=32, heads=4, kv_heads=2, head_dim=8,
        mlp_dim=64, max_positions=128, rotary_dim=8).replace(**changes)
    decoder = Decoder(config)
    random = _random(abstract_variables(decoder))
    return LanguageModel.place(config, random, tokenizer, mesh)
  return make


def _random(boxed):
  """Returns variables of the given shapes, norms near one."""
  leaves, tree = jax.tree.flatten(sharding.unbox(boxed))
  keys = jax.random.split(jax.random.key(1), len(leaves))
  return jax.tree.unflatten(tree, [
      0.1 * jax.random.normal(key, leaf.shape) + (len(leaf.shape) < 3 and leaf.shape[-1:] == (32,))
      for key, leaf in zip(keys, leaves, strict=True)])
