"""How llama.cpp names architectures, settings and tensors, and how transformers names them."""

# The architectures of llama.cpp that are supported, and their model types in transformers.
MODEL_TYPES = {
    'llama': 'llama', 'qwen2': 'qwen2', 'qwen3': 'qwen3', 'gemma3': 'gemma3_text',
    'gpt2': 'gpt2'}
# Metadata of an architecture and the fields of config.json; '' if there is no such field.
LLAMA_FIELDS = {
    'block_count': 'num_hidden_layers', 'embedding_length': 'hidden_size',
    'feed_forward_length': 'intermediate_size', 'attention.head_count': 'num_attention_heads',
    'attention.head_count_kv': 'num_key_value_heads', 'attention.key_length': 'head_dim',
    'attention.layer_norm_rms_epsilon': 'rms_norm_eps', 'context_length': 'max_position_embeddings',
    'rope.freq_base': 'rope_theta', 'rope.freq_base_swa': 'rope_local_base_freq',
    'attention.sliding_window': 'sliding_window', 'attention.value_length': '', 'vocab_size': '',
    'rope.dimension_count': '', 'rope.scaling.type': '', 'rope.scaling.factor': '',
    'rope.scaling.original_context_length': '', 'rope.scaling.finetuned': ''}
# What llama.cpp assumes where a file says nothing, other than the model families of transformers.
LLAMA_DEFAULTS = {'num_key_value_heads': None, 'head_dim': None, 'rope_theta': 10_000.0}
GPT2_FIELDS = {
    'block_count': 'n_layer', 'embedding_length': 'n_embd', 'feed_forward_length': 'n_inner',
    'attention.head_count': 'n_head', 'attention.layer_norm_epsilon': 'layer_norm_epsilon',
    'context_length': 'n_positions', 'vocab_size': ''}
# A tensor: each pair of rotary embeddings has its frequency divided by one of its numbers.
ROPE_FACTORS = 'rope_freqs.weight'
# Names of the tensors in transformers and in GGUF, where those of a layer begin with `blk.`.
_LLAMA_NAMES = {
    'model.embed_tokens': 'token_embd', 'model.norm': 'output_norm', 'lm_head': 'output'}
_LLAMA_BLOCK = {
    'input_layernorm': 'attn_norm', 'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v', 'self_attn.o_proj': 'attn_output',
    'self_attn.q_norm': 'attn_q_norm', 'self_attn.k_norm': 'attn_k_norm',
    'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up', 'mlp.down_proj': 'ffn_down'}
_GPT2_NAMES = {'transformer.wte': 'token_embd', 'transformer.wpe': 'position_embd',
               'transformer.ln_f': 'output_norm', 'lm_head': 'output'}
_GPT2_BLOCK = {'ln_1': 'attn_norm', 'attn.c_attn': 'attn_qkv', 'attn.c_proj': 'attn_output',
               'ln_2': 'ffn_norm', 'mlp.c_fc': 'ffn_up', 'mlp.c_proj': 'ffn_down'}


def transformers_names(architecture: str, layers: int) -> dict[str, str]:
  """Returns the names of tensors in transformers, by their names in a GGUF file.

  Args:
    architecture: the architecture, as llama.cpp calls it.
    layers: number of layers.
  """
  plain, block, prefix = _LLAMA_NAMES, _LLAMA_BLOCK, 'model.layers'
  if architecture == 'gpt2':
    plain, block, prefix = _GPT2_NAMES, _GPT2_BLOCK, 'transformer.h'
  elif architecture == 'gemma3':
    block = block | {
        'post_attention_layernorm': 'post_attention_norm', 'pre_feedforward_layernorm':
        'ffn_norm', 'post_feedforward_layernorm': 'post_ffw_norm'}
  else:
    block = block | {'post_attention_layernorm': 'ffn_norm'}
  pairs = [*plain.items(), *((f'{prefix}.{i}.{theirs}', f'blk.{i}.{name}')
                             for i in range(layers) for theirs, name in block.items())]
  return {f'{name}.{part}': f'{theirs}.{part}'
          for theirs, name in pairs for part in ('weight', 'bias')}


def is_transposed(architecture: str, name: str) -> bool:
  """Returns whether transformers has the transpose of a tensor: the matrices of GPT-2.

  Args:
    architecture: the architecture, as llama.cpp calls it.
    name: the tensor's name in transformers.
  """
  return architecture == 'gpt2' and name.endswith('.weight') and '.c_' in name


def is_interleaved(architecture: str, name: str) -> bool:
  """Returns whether llama.cpp interleaves the rotary pairs of a tensor: queries and keys of Llama.

  In transformers, the two dimensions of a pair are half a head apart. The arguments are those of
  `is_transposed`.
  """
  return architecture == 'llama' and ('.q_proj.' in name or '.k_proj.' in name)
