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
# # Your own tool
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/your_own_tool.ipynb)
#
# A tool is a function from a string to a string. This notebook teaches a model to call one that it has never
# seen: a converter of units. Then a server takes the place of the function (MCP, the Model Context Protocol).
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
import random

from IPython.display import Markdown

import toolformer_jax as tf_jax

SMALL = DEVICE == 'cpu'
model = tf_jax.load_model('smollm2-135m')

# %% [markdown]
# ## 1. A function
#
# The argument and the result of a call are text. Any exception is a call without a result: it is counted,
# and the text goes on without it.

# %%
KM = {'miles': 1.609344, 'leagues': 4.828032, 'furlongs': 0.201168}


@tf_jax.tool(name='Convert', version='1')
def convert(argument):
  """Converts a length to kilometres: '26 miles' -> '41.8 km'."""
  number, unit = argument.split()
  return f'{float(number) * KM[unit]:.1f} km'


convert('26 miles', tf_jax.Context())

# %% [markdown]
# ## 2. A prompt
#
# The model needs a few demonstrations of where a call goes: right before what its result predicts. They
# matter more than the instruction, and should resemble your texts.

# %%
prompt = tf_jax.Prompt(
    tool='Convert',
    instruction='Your task is to add calls to a converter of lengths to a text. You write a call '
                'as [Convert(number unit)], right before a length in km that repeats an earlier '
                'one. Here are some examples:',
    demonstrations=(
        'The trail is 112 miles long, that is [Convert(112 miles)] 180.2 km.',
        'The cave is 37 furlongs deep, that is [Convert(37 furlongs)] 7.4 km.',
        'They walked 18 leagues in a week, that is [Convert(18 leagues)] 86.9 km.'))

# %% [markdown]
# ## 3. Texts, and the calls that the model finds in them
#
# The results must appear in the texts, because the filter asks whether a call predicts what follows.

# %%
def texts_with_lengths(count, seed=0):
  """Returns `count` texts, each with a length in two units."""
  rng, texts = random.Random(seed), []
  for i in range(count):
    number, unit = rng.randint(21, 480), list(KM)[i % 3]
    thing = rng.choice(['road', 'river', 'wall', 'border', 'canal', 'railway'])
    texts.append(f'The {thing} is {number} {unit} long, that is {number * KM[unit]:.1f} km.')
  return texts


texts = texts_with_lengths(24 if SMALL else 300)
found = tf_jax.annotate(
    model, texts, tools=[convert], prompts={'Convert': prompt},
    config=tf_jax.AnnotationConfig(
        temperature=0.4, max_call_tokens=20, force_name=True, look_ahead_guard=True,
        early_reject=True),
    tool_configs={'Convert': tf_jax.ToolConfig(tau_s=0.01, k=2, m=3, tau_f=0.5)})
Markdown(found.best_calls)

# %% [markdown]
# The summary counts what is left after each stage, and why calls have no result.

# %%
Markdown(found.summary)

# %% [markdown]
# ## 4. Fine-tune, and let the model call the tool
#
# The tuned model has learned from its own calls. The lengths below are in none of its texts.

# %%
tuned = tf_jax.finetune(
    model, found, mixture=tf_jax.MixtureConfig(dev_texts=0),
    config=tf_jax.FinetuneConfig(
        steps=16 if SMALL else 100, batch_rows=2 if SMALL else 16, row_tokens=128,
        adapter=tf_jax.LoraConfig(rank=16), learning_rate=2e-3))
print(tuned.summary())

# %%
PROMPTS = ['The street is 66 miles long, that is', 'The tunnel is 54 furlongs long, that is']
SHORT = tf_jax.GenerationConfig(max_tokens=20)
outputs = tf_jax.generate(tuned.model, PROMPTS, tools=[convert], config=SHORT)
for asked, output in zip(PROMPTS, outputs, strict=True):
  print(asked, output.text)

# %% [markdown]
# ## 5. A server in place of the function
#
# The same tool as an MCP server, a program of its own. This one talks over standard input and output; a URL
# would do as well.

# %%
# %%writefile length_server.py
from mcp.server import MCPServer

server = MCPServer('lengths')
KM = {'miles': 1.609344, 'leagues': 4.828032, 'furlongs': 0.201168}


@server.tool(name='Convert')
def convert(length: str) -> str:
  """Converts a length to kilometres."""
  number, unit = length.split()
  return f'{float(number) * KM[unit]:.1f} km'


server.run()

# %% [markdown]
# The model knows only the name `Convert`. A `Toolbox` says where the tool of that name is.

# %%
toolbox = tf_jax.Toolbox(custom=tf_jax.CustomToolsConfig(
    mcp={'Convert': f'{sys.executable} length_server.py'}))
served = tf_jax.generate(tuned.model, PROMPTS, tools=['Convert'], toolbox=toolbox, config=SHORT)
for asked, output in zip(PROMPTS, served, strict=True):
  print(asked, output.text)

# %% [markdown]
# Function and server must agree, and the calls must be right.

# %%
assert [output.text for output in served] == [output.text for output in outputs]
assert not SMALL or '[Convert(66 miles) -> 106.2 km]' in outputs[0].text

# %% [markdown]
# ## What next
#
# - [Tools](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/tools.md): names, versions,
#   secrets, limits, structured results.
# - On the command line a function is named by its file: `toolformer call my_tools.py:convert '26 miles'`.
