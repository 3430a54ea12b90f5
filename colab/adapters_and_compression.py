# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Adapters and compression
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/adapters_and_compression.ipynb)
#
# An adapter is a small set of weights that is trained in place of the model's own. Compression makes the model
# itself smaller. This notebook teaches calls to three kinds of adapters, exchanges one with PEFT, and stores the
# tuned model in fewer bits.
#
# The first cell installs the package for the TPU, the GPU or the CPU of this machine.

# %%
import glob
import importlib.util
import os
import shutil
import subprocess
import sys

RELEASE = '0.1.0'


def set_up():
  """Installs toolformer_jax, unless it is there already; returns 'tpu', 'gpu' or 'cpu'."""
  has_tpu = glob.glob('/dev/accel*') or glob.glob('/dev/vfio/[0-9]*')
  device = 'tpu' if has_tpu else 'gpu' if shutil.which('nvidia-smi') else 'cpu'
  if os.environ.get('JAX_PLATFORMS') == 'cpu':  # the user wants no accelerator
    device = 'cpu'
  if importlib.util.find_spec('toolformer_jax') is None:
    extras = 'mcp,plots' if device == 'cpu' else f'mcp,plots,{device}'
    package = f'toolformer_jax[{extras}]=={RELEASE}'
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', package], check=True)
  return device


DEVICE = set_up()
DEVICE

# %% [markdown]
# A CPU gets small settings, and this is the only line that chooses them.

# %%
import pathlib
import random

import matplotlib.pyplot as plt

import toolformer_jax as tf_jax

SMALL = DEVICE == 'cpu'

# %% [markdown]
# ## 1. Texts to learn from
#
# A `TaskRow` has inputs, which are read, and targets, which are learned. Here the target is a call with its
# result and the number. In an experiment `annotate` would find such calls.

# %%
def rows(count, seed=0):
  """Returns problems whose targets call the calculator."""
  rng, found = random.Random(seed), []
  for number in range(count):
    boxes, pens = rng.randint(12, 98), rng.randint(12, 98)
    found.append(tf_jax.TaskRow(
        f'row-{number}', f'A shop has {boxes} boxes with {pens} pens each. In all it has',
        f' [Calculator({boxes} * {pens}) -> {boxes * pens}] {boxes * pens} pens.'))
  return found


texts = rows(24 if SMALL else 400)
texts[0]

# %% [markdown]
# ## 2. Three kinds of adapters
#
# LoRA adds a product of two thin matrices to each weight, IA3 scales activations, and prefix tuning learns keys
# and values that come before every text. Each begins with the same model.

# %%
ADAPTERS = {'LoRA': tf_jax.LoraConfig(rank=8), 'IA3': tf_jax.Ia3Config(),
            'prefix': tf_jax.PrefixConfig(num_virtual_tokens=16)}
RATES = {'LoRA': 2e-3, 'IA3': 2e-2, 'prefix': 2e-2}

tuned = {}
for name, adapter in ADAPTERS.items():
  config = tf_jax.FinetuneConfig(
      steps=10 if SMALL else 100, batch_rows=2 if SMALL else 16,
      row_tokens=64 if SMALL else 128, adapter=adapter, learning_rate=RATES[name])
  tuned[name] = tf_jax.finetune(tf_jax.load_model('smollm2-135m'), texts, config=config,
                                mixture=tf_jax.MixtureConfig(dev_texts=0))
  plt.plot([step['loss'] for step in tuned[name].metrics], label=name)
plt.xlabel('step')
plt.ylabel('loss (nats per token)')
plt.legend();

# %%
for name, result in tuned.items():
  first, last = result.metrics[0]['loss'], result.metrics[-1]['loss']
  print(f'{name}: loss {first:.2f} -> {last:.2f}')
assert tuned['LoRA'].metrics[-1]['loss'] < tuned['LoRA'].metrics[0]['loss']

# %% [markdown]
# The tuned model calls the calculator for numbers that it has not seen.

# %%
PROMPT = 'A shop has 57 boxes with 49 pens each. In all it has'
SHORT = tf_jax.GenerationConfig(max_tokens=8)
tf_jax.generate(tuned['LoRA'].model, PROMPT, tools=['calculator'], config=SHORT).text

# %% [markdown]
# ## 3. To PEFT and back
#
# An adapter is exported in PEFT's format, 9 MB instead of 540, and loaded onto the same base again. Any
# command takes such a folder as `--adapter`.

# %%
ADAPTER = tf_jax.export(tuned['LoRA'].model, output_dir='runs/adapter',
                        adapter_of='HuggingFaceTB/SmolLM2-135M-Instruct')
loaded = tf_jax.load_model('smollm2-135m', adapter=ADAPTER)


def logprob(model, text):
  """Returns the log-probability of a text after its first token."""
  return sum(tf_jax.score(model, text)[0]['logprobs'][1:])


print(sorted(path.name for path in pathlib.Path('runs/adapter').iterdir()))
assert abs(logprob(tuned['LoRA'].model, PROMPT) - logprob(loaded, PROMPT)) < 1e-3

# %% [markdown]
# ## 4. Fewer bits
#
# First the adapter is merged into the weights. Then 8 bits for each weight, in this package's own format and as a
# GGUF file for llama.cpp.

# %%
merged = tf_jax.export(loaded, output_dir='runs/merged')
small = tf_jax.compress(merged, output_dir='runs/int8',
                        config=tf_jax.CompressionConfig(bits='int8', rounding='nearest'))
tf_jax.export(merged, output_dir='runs/gguf', format='gguf', quantization='q8_0')


def megabytes(folder):
  """Returns the size of the files in a folder."""
  files = [path for path in pathlib.Path(folder).rglob('*') if path.is_file()]
  return sum(path.stat().st_size for path in files) / 1e6


sizes = {name: megabytes(f'runs/{name}') for name in ('adapter', 'merged', 'int8', 'gguf')}
plt.barh(list(sizes), list(sizes.values()))
plt.gca().invert_yaxis()
plt.xlabel('MB');

# %% [markdown]
# How much does rounding change? The log-probability of a text, by the model as it was and by the smaller one:

# %%
TEXT = PROMPT + ' [Calculator(57 * 49) -> 2793] 2793 pens.'
for folder in (merged, small.path):
  print(pathlib.Path(folder).name, round(logprob(folder, TEXT), 3))
assert sizes['int8'] < sizes['merged'] / 3

# %% [markdown]
# ## What next
#
# - Every kind of adapter, and what can be merged:
#   [adapters](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/adapters.md).
# - Layers, heads, channels, zeros and 4 bits:
#   [make a model smaller](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/compression.md).
