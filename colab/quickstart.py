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
# # A Toolformer from nothing
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/quickstart.ipynb)
#
# A language model of 135 million parameters learns to use a calculator, as in
# [Toolformer](https://arxiv.org/abs/2302.04761) (Schick et al. 2023). Nobody tells it where: it proposes
# calls itself, and keeps those that help it to predict the text that follows. With small
# settings it takes a few minutes on two CPU cores; it was not run on a TPU or a GPU yet.
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

import matplotlib.pyplot as plt

import toolformer_jax as tf_jax

SMALL = DEVICE == 'cpu'

# %% [markdown]
# ## 1. A model
#
# The model is SmolLM2-135M-Instruct. The first use downloads it (93 MB).

# %%
model = tf_jax.load_model('smollm2-135m')
model

# %% [markdown]
# It can write, but it cannot calculate. These are its continuations of four texts.

# %%
PROMPTS = ['A zoo has 276 birds and 148 fish. Together that makes',
           'A shop had 931 lamps and sold 402 of them. It still has',
           'A stadium has 44 rows of 27 seats. In total it has',
           'A vet packs 450 pills into boxes of 18. He fills']
SHORT = tf_jax.GenerationConfig(max_tokens=16)

before = tf_jax.generate(model, PROMPTS, tools=['calculator'], config=SHORT)
for prompt, output in zip(PROMPTS, before, strict=True):
  print(prompt, '...', output.text.strip().splitlines()[0])

# %% [markdown]
# ## 2. Texts without calls
#
# Any texts will do in which the results of a tool appear. Here, four sentences get random numbers. The
# texts hold no call, and nothing says which number is computed from which.

# %%
def texts_with_numbers(count, seed=0):
  """Returns `count` texts, each with a sum, a difference, a product or a quotient."""
  rng, texts = random.Random(seed), []
  for i in range(count):
    b, a = sorted(rng.sample(range(101, 900), 2))
    c, d = rng.randint(12, 98), rng.randint(12, 49)
    texts.append([
        f'A farm has {a} sheep and {b} goats. Together that makes {a + b} animals.',
        f'A library had {a} books and sold {b} of them. It still has {a - b} books.',
        f'A cinema has {c} rows of {d} seats. In total it has {c * d} seats.',
        f'A baker packs {c * d} rolls into boxes of {d}. She fills {c} boxes.'][i % 4])
  return texts


texts = texts_with_numbers(24 if SMALL else 400)
texts[:4]

# %% [markdown]
# ## 3. The model proposes calls
#
# A prompt with a few demonstrations shows the model what a call looks like. The model then reads each
# text, begins a call wherever it finds a call likely enough, and writes the call itself.

# %%
prompt = tf_jax.Prompt(
    tool='Calculator',
    instruction='Your task is to add calls to a calculator to a text. You write a call as '
                '[Calculator(expression)], right before a number that can be computed from earlier '
                'numbers. Here are some examples:',
    demonstrations=(
        'A school has 415 girls and 388 boys. Together that makes [Calculator(415 + 388)] 803 '
        'children.',
        'A shop had 620 pens and sold 175 of them. It still has [Calculator(620 - 175)] 445 pens.',
        'A hall has 34 rows of 26 chairs. In total it has [Calculator(34 * 26)] 884 chairs.',
        'A nurse packs 540 pills into bags of 15. She fills [Calculator(540 / 15)] 36 bags.'))

# %% [markdown]
# `annotate` samples calls, executes them, and keeps a call only if its result makes the following tokens
# easier to predict by `tau_f` nats. The thresholds are lower than the paper's, because a small model gives
# the start of a call a low probability.

# %%
found = tf_jax.annotate(
    model, texts, tools=['calculator'], prompts={'calculator': prompt},
    config=tf_jax.AnnotationConfig(
        temperature=0.4, max_call_tokens=24, force_name=True, look_ahead_guard=True),
    tool_configs={'calculator': tf_jax.ToolConfig(tau_s=0.01, k=2, m=3, tau_f=0.5)})
found

# %% [markdown]
# The loss of the text after each call, with and without the result. Calls above the line are kept.

# %%
calls = [call for call in found.to_records() if call['gain'] is not None]
without = [min(call['loss_no_call'], call['loss_call']) for call in calls]
with_result = [call['loss_result'] for call in calls]
kept = ['tab:green' if call['gain'] >= 0.5 else 'tab:red' for call in calls]

plt.figure(figsize=(4.5, 4))
plt.scatter(with_result, without, c=kept)
plt.axline((0, 0.5), slope=1, color='0.6', linestyle='--')
plt.xlabel('loss with the result (nats)')
plt.ylabel('loss without it (nats)')
plt.title('Calls that are kept (green) and rejected (red)');

# %% [markdown]
# Most kept calls compute the number that follows, although nothing in the filter knows arithmetic.

# %%
for annotated in found.annotated[:6]:
  call = annotated.calls[0]
  print(f'{call.gain:5.2f}  {annotated.document.text}  {call.argument} -> {call.result}')

# %% [markdown]
# ## 4. The model learns its own calls
#
# Fine-tuning takes the texts with the calls that were kept. Adapters of rank 16 (LoRA) are enough here; the
# paper trains all weights.

# %%
tuned = tf_jax.finetune(
    model, found, mixture=tf_jax.MixtureConfig(dev_texts=0),
    config=tf_jax.FinetuneConfig(
        steps=16 if SMALL else 100, batch_rows=2 if SMALL else 16, row_tokens=128,
        adapter=tf_jax.LoraConfig(rank=16), learning_rate=2e-3))

plt.figure(figsize=(5, 2.5))
plt.plot([step['step'] for step in tuned.metrics], [step['loss'] for step in tuned.metrics])
plt.xlabel('step')
plt.ylabel('loss (nats per token)');

# %% [markdown]
# ## 5. The model uses the tool
#
# The same prompts as before. When the model writes `->`, the calculator answers and the text goes on.

# %%
after = tf_jax.generate(tuned.model, PROMPTS, tools=['calculator'],
                        config=tf_jax.GenerationConfig(max_tokens=24))
for prompt, output in zip(PROMPTS, after, strict=True):
  print(prompt, output.text)

# %% [markdown]
# The README quotes the first of these, so it must stay true. Most of the other calls must be right too.

# %%
assert not SMALL or after[0].text == ' [Calculator(276 + 148) -> 424] 424 animals.'
assert sum(call.argument.replace(' ', '') in ('276+148', '931-402', '44*27', '450/18')
           for call in (output.calls[0].call for output in after if output.calls)) >= 3

# %% [markdown]
# ## What next
#
# - `tf_jax.export(tuned.model, output_dir='my_toolformer')` writes a folder that transformers reads.
# - [How it works](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/how_it_works.md) explains
#   each step.
# - [Why a call is kept](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/why_a_call_is_kept.ipynb)
#   looks at the losses token by token;
#   [your own tool](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/your_own_tool.ipynb)
#   takes the place of the calculator.
