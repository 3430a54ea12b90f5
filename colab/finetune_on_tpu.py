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
# # Fine-tune on a TPU
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/finetune_on_tpu.ipynb)
#
# The same fine-tuning runs on one device, on the eight chips of a TPU machine, and on a pod. This notebook
# plans it, shards the model over a mesh, is stopped and goes on, and exports the result. Without a TPU, a
# CPU simulates eight devices.
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
import signal
import threading
import time

import jax
import matplotlib.pyplot as plt

import toolformer_jax as tf_jax

SMALL = DEVICE == 'cpu'
jax.config.update('jax_num_cpu_devices', 8)  # has an effect on CPUs alone

# %% [markdown]
# ## 1. Plan before you pay
#
# `toolformer plan` compiles a step for TPUs that you need not have. It says whether the step fits the memory, and
# how fast it can be at best. Without the compiler for TPUs, it says what to install. A CPU plans the scoring of
# texts here, which compiles faster than a training step.

# %%
STEP = 'score' if SMALL else 'train'
# !toolformer plan --model gpt2_124m --topology v5e-8 --step {STEP} --batch 64 --length 512

# %% [markdown]
# ## 2. A mesh
#
# The axes of a mesh are `data` (the batch), `fsdp` (the batch, the weights and the state of the optimizer)
# and `tensor` (heads, MLP and vocabulary). Their product is the number of devices.

# %%
MESH = tf_jax.ModelConfig(data=2 if jax.device_count() % 2 == 0 else 1, fsdp=-1,
                          dtype='float32' if SMALL else 'bfloat16')
model = tf_jax.load_model('smollm2-135m', config=MESH)
model

# %% [markdown]
# Every weight is divided along the axes that fit it, and a device holds only its part.

# %%
shown = sorted(jax.tree_util.tree_leaves_with_path(model.variables['params']),
               key=lambda leaf: -leaf[1].size)[:5]
for path, array in shown:
  part = array.sharding.shard_shape(array.shape)
  print(f'{jax.tree_util.keystr(path, simple=True, separator="/"):40}', array.shape, '->', part)

# %% [markdown]
# ## 3. A run that is stopped
#
# The texts have calls already, as in the
# [quickstart](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/quickstart.ipynb),
# which finds them. Every other step is saved, in `runs/tuned`.

# %%
texts = [tf_jax.Document(f'text {n}', f'A cinema has {n} rows of {m} seats. In total it has '
                                      f'[Calculator({n} * {m}) -> {n * m}] {n * m} seats.')
         for n in range(20, 60) for m in (17, 23, 38)]
CONFIG = tf_jax.FinetuneConfig(
    steps=6 if SMALL else 200, batch_rows=8 if SMALL else 64, row_tokens=40 if SMALL else 512,
    adapter=tf_jax.LoraConfig(rank=8), learning_rate=2e-3, save_every=2 if SMALL else 50)


def finetune(model):
  """Starts the run, or continues it."""
  return tf_jax.finetune(model, texts, config=CONFIG, output_dir='runs/tuned',
                         mixture=tf_jax.MixtureConfig(dev_texts=0))

# %% [markdown]
# A machine that is taken away gets the signal SIGTERM first. Here, a thread sends it after the first save.
# The run saves its state and returns.

# %%
def preempt():
  """Waits for a checkpoint of the run, and sends SIGTERM."""
  metrics = pathlib.Path('runs/tuned/metrics.jsonl')
  while not metrics.exists() or not metrics.read_text():
    time.sleep(0.05)
  signal.raise_signal(signal.SIGTERM)


threading.Thread(target=preempt, daemon=True).start()
stopped = finetune(model)
print(stopped.summary())

# %% [markdown]
# ## 4. The same call goes on
#
# The losses are those of a run that was never stopped. The folder remembers all settings: another one, or
# another corpus, is refused.

# %%
first_steps = len(stopped.metrics)
tuned = finetune(tf_jax.load_model('smollm2-135m', config=MESH))
print(tuned.summary())
assert not stopped.finished and tuned.finished
assert tuned.metrics[:first_steps] == stopped.metrics and len(tuned.metrics) == CONFIG.steps

plt.figure(figsize=(5, 2.5))
plt.plot([step['step'] for step in tuned.metrics], [step['loss'] for step in tuned.metrics], 'o-')
plt.axvline(first_steps + 0.5, color='0.6', linestyle='--', label='stopped here')
plt.xlabel('step')
plt.ylabel('loss (nats per token)')
plt.legend();

# %% [markdown]
# ## 5. Export
#
# `export` merges the adapters into the weights and writes a Hugging Face directory.

# %%
folder = tf_jax.export(tuned.model, output_dir='runs/exported')
sorted(path.name for path in folder.iterdir())

# %% [markdown]
# Read back, the model gives the same probabilities.

# %%
SENTENCE = 'A cinema has 21 rows of 33 seats.'
before, = tf_jax.score(tuned.model, [SENTENCE])
exported = tf_jax.load_model('runs/exported', config=MESH)
after, = tf_jax.score(exported, [SENTENCE])
difference = max(abs(a - b) for a, b in zip(before['logprobs'][1:], after['logprobs'][1:],
                                            strict=True))
print(f'largest difference of a log-probability: {difference:.1e}')
assert not SMALL or difference < 1e-3

# %% [markdown]
# Transformers reads the folder too, if it is installed.

# %%
if importlib.util.find_spec('transformers') and importlib.util.find_spec('torch'):
  import transformers
  theirs = transformers.AutoModelForCausalLM.from_pretrained('runs/exported')
  print(f'{theirs.num_parameters():,} parameters')
else:
  print('transformers and torch are not installed')

# %% [markdown]
# ## What next
#
# - [TPU VMs, pods, GPUs](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/tpu_and_gpu.md) has the
#   commands for real machines, buckets and several hosts.
# - [GPT-J on a TPU VM](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/gptj_on_a_tpu_vm.md) is the
#   paper's model, with times and costs.
