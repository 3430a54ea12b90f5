"""Decoders of published models by name: the sizes of the paper's models, and of a few others."""

from toolformer_jax.errors import unknown
from toolformer_jax.models.config import DecoderConfig


def _gpt2(layers: int, embed_dim: int, heads: int) -> DecoderConfig:
  """GPT-2 (Radford et al. 2019)."""
  return DecoderConfig(
      vocab_size=50257, layers=layers, embed_dim=embed_dim, heads=heads, kv_heads=heads,
      head_dim=64, mlp_dim=4 * embed_dim, max_positions=1024, norm='layer', positions='learned',
      gated_mlp=False, activation='gelu_tanh', qkv_bias=True, out_bias=True, mlp_bias=True)


def _smollm2(layers: int, embed_dim: int, heads: int, kv_heads: int, mlp_dim: int,
             rotary_base: float) -> DecoderConfig:
  """SmolLM2 (Ben Allal et al. 2025), of the Llama family."""
  return DecoderConfig(
      vocab_size=49152, layers=layers, embed_dim=embed_dim, heads=heads, kv_heads=kv_heads,
      head_dim=64, mlp_dim=mlp_dim, max_positions=8192, rotary_dim=64, rotary_base=rotary_base)


PRESETS = {
    'gpt2_124m': _gpt2(layers=12, embed_dim=768, heads=12),
    'gpt2_355m': _gpt2(layers=24, embed_dim=1024, heads=16),
    'gpt2_774m': _gpt2(layers=36, embed_dim=1280, heads=20),
    'gpt2_1.5b': _gpt2(layers=48, embed_dim=1600, heads=25),
    # GPT-J (Wang and Komatsuzaki 2021), the model of the paper.
    'gptj_6b': DecoderConfig(
        vocab_size=50400, layers=28, embed_dim=4096, heads=16, kv_heads=16, head_dim=256,
        mlp_dim=16384, max_positions=2048, norm='layer', positions='rotary_interleaved',
        rotary_dim=64, parallel_block=True, gated_mlp=False, activation='gelu_tanh',
        mlp_bias=True, head_bias=True, tied_head=False),
    'smollm2_135m': _smollm2(layers=30, embed_dim=576, heads=9, kv_heads=3, mlp_dim=1536,
                             rotary_base=100_000.0),
    'smollm2_360m': _smollm2(layers=32, embed_dim=960, heads=15, kv_heads=5, mlp_dim=2560,
                             rotary_base=100_000.0),
    'smollm2_1.7b': _smollm2(layers=24, embed_dim=2048, heads=32, kv_heads=32, mlp_dim=8192,
                             rotary_base=130_000.0),
    # Qwen 3 (Qwen Team 2025).
    'qwen3_0.6b': DecoderConfig(
        vocab_size=151936, layers=28, embed_dim=1024, heads=16, kv_heads=8, head_dim=128,
        mlp_dim=3072, max_positions=40960, rotary_dim=128, rotary_base=1_000_000.0, norm_eps=1e-6,
        qk_norm=True),
    # The text decoder of Gemma 3 (Gemma Team 2025).
    'gemma3_270m': DecoderConfig(
        vocab_size=262144, layers=18, embed_dim=640, heads=4, kv_heads=1, head_dim=256,
        mlp_dim=2048, max_positions=32768, rotary_dim=256, rotary_base=1_000_000.0,
        local_rotary_base=10_000.0, sliding_window=512, global_every=6, norm_eps=1e-6,
        qk_norm=True, sandwich_norm=True, norm_offset=True, scaled_embedding=True,
        activation='gelu_tanh')}

# A checkpoint of each: what `load_model` takes.
CHECKPOINTS = {
    'gpt2_124m': 'hf://openai-community/gpt2',
    'gpt2_355m': 'hf://openai-community/gpt2-medium',
    'gpt2_774m': 'hf://openai-community/gpt2-large',
    'gpt2_1.5b': 'hf://openai-community/gpt2-xl',
    'gptj_6b': 'hf://EleutherAI/gpt-j-6b',
    'smollm2_135m': 'smollm2-135m',
    'smollm2_360m': 'hf://HuggingFaceTB/SmolLM2-360M',
    'smollm2_1.7b': 'hf://HuggingFaceTB/SmolLM2-1.7B',
    'qwen3_0.6b': 'hf://Qwen/Qwen3-0.6B',
    'gemma3_270m': 'gemma3-270m'}


def preset(name: str) -> DecoderConfig:
  """Returns the decoder called `name` in `PRESETS`.

  Raises:
    UserError: there is none.
  """
  if name not in PRESETS:
    raise unknown('model', name, PRESETS)
  return PRESETS[name]


def size_name(config: DecoderConfig) -> str:
  """Returns the name of the preset with the same layers; without one, their number and width."""
  def layers_of(one: DecoderConfig) -> tuple:
    return (one.layers, one.embed_dim, one.heads, one.kv_heads, one.head_dim, one.mlp_dim, one.norm,
            one.positions, one.parallel_block)
  names = (name for name, known in PRESETS.items() if layers_of(known) == layers_of(config))
  return next(names, f'{config.layers} layers of width {config.embed_dim}')
