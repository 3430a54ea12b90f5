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
# # Why a call is kept
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/why_a_call_is_kept.ipynb)
#
# Toolformer keeps a call if its result helps the model to predict the text that follows. This notebook
# computes that for one call, token by token, then for wrong calls, for every position, and for many calls.
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
model = tf_jax.load_model('smollm2-135m')

# %% [markdown]
# ## 1. One call, token by token
#
# The loss of a token is minus the logarithm of its probability, in nats. `token_losses` computes it three
# times: for the text alone, for the text after the call without a result, and for the text after the call
# with its result.

# %%
TEXT = 'Ann has 24 rows of 15 roses. How many roses has she? She has{} 360 roses.'
losses = tf_jax.token_losses(model, TEXT.format(' [Calculator(24 * 15) -> 360]'))

print('token       no call  no result  with result  weight')
for row in losses.to_records()[losses.position - 3:]:
  print(f"{row['token']!r:10} {row['no_call']:8.2f} {row['no_result']:10.2f} "
        f"{row['with_result']:12.2f} {row['weights']:7.2f}")

# %% [markdown]
# The filter only looks at the five tokens from the call on, and less at each: the weights are 5/15, 4/15,
# 3/15, 2/15 and 1/15 (grey). With the result, the digits of 360 are less of a surprise, the last one above
# all. The call without its result makes the first two harder to predict.

# %%
def bars(losses, before=4):
  """Draws the three losses of each token around a call, and the weights of the filter."""
  rows = losses.to_records()[losses.position - before:losses.position + 6]
  places = range(len(rows))
  plt.figure(figsize=(8, 3.2))
  kinds = {'no_call': 'no call', 'no_result': 'call, no result', 'with_result': 'call and result'}
  for i, (field, label) in enumerate(kinds.items()):
    plt.bar([x + 0.27 * (i - 1) for x in places], [row[field] for row in rows], 0.25, label=label)
  plt.ylabel('loss (nats)')
  plt.xticks(places, [repr(row['token'])[1:-1] for row in rows])
  plt.legend(loc='upper right')
  weights = plt.twinx()
  weights.fill_between(
      places, [row['weights'] for row in rows], step='mid', color='0.5', alpha=0.25)
  weights.set(ylabel='weight', ylim=(0, 1))


bars(losses)

# %% [markdown]
# ## 2. The gain
#
# Each of the three losses becomes one number, its weighted sum. The gain is the smaller of the first two
# minus the third: the call must help by its *result*, and more than the text alone.

# %%
def weighted(values):
  """Returns the weighted sum of the losses from the call on."""
  return sum(w * value for w, value in zip(losses.weights, values, strict=True) if w)


no_call, no_result, with_result = map(
    weighted, (losses.no_call, losses.no_result, losses.with_result))
gain = min(no_call, no_result) - with_result
print(f'min({no_call:.2f}, {no_result:.2f}) - {with_result:.2f} = {gain:.2f} nats')
assert abs(gain - losses.gain) < 1e-4

# %% [markdown]
# ## 3. Other calls at the same place
#
# A call that computes something else does not help, and one whose result is almost right helps too little. A
# strange way to get the right number is kept: the filter knows nothing of arithmetic, it only sees what
# predicts.

# %%
CALLS = ['Calculator(24 * 15) -> 360', 'Calculator(24 + 15) -> 39', 'Calculator(24 * 15) -> 365',
         'Calculator(15 / 24) -> 0.62', 'Calculator(361 - 1) -> 360']
gains = {call: tf_jax.token_losses(model, TEXT.format(f' [{call}]')).gain for call in CALLS}

plt.figure(figsize=(6, 2.2))
plt.barh(list(gains), list(gains.values()),
         color=['tab:green' if gain >= 0.5 else 'tab:red' for gain in gains.values()])
plt.gca().invert_yaxis()
plt.axvline(0.5, color='0.6', linestyle='--')
plt.xlabel('gain (nats); calls above tau_f = 0.5 are kept');

# %% [markdown]
# The first call is the example of the README, so its gain must stay above the threshold.

# %%
assert gains['Calculator(24 * 15) -> 360'] > 0.5 > gains['Calculator(24 + 15) -> 39']

# %% [markdown]
# ## 4. The same call everywhere
#
# At most positions the same call gains too little: the number does not follow soon enough, or it has been
# said already. A call within the number would help too, but the model rarely begins one there.

# %%
plain = TEXT.format('')
ids = model.tokenizer.encode(plain)
positions = range(2, len(ids))
call = '[Calculator(24 * 15) -> 360]'
by_position = [tf_jax.token_losses(model, plain, call=call, position=i).gain for i in positions]

plt.figure(figsize=(8, 2.5))
plt.bar(positions, by_position,
        color=['tab:green' if gain >= 0.5 else 'tab:red' for gain in by_position])
plt.axhline(0.5, color='0.6', linestyle='--')
plt.xticks(positions, [repr(model.tokenizer.decode([ids[i]]))[1:-1] for i in positions],
           rotation=90)
plt.ylabel('gain (nats)');

# %% [markdown]
# ## 5. Two thresholds
#
# In a real annotation the model proposes the calls. `tau_s` is the least probability of a call's start at a
# position, and `tau_f` the least gain. Here `tau_s` is 0, so that everything is seen.

# %%
rng = random.Random(0)
texts = []
for _ in range(8 if SMALL else 200):
  a, b = rng.randint(12, 98), rng.randint(12, 49)
  texts.append(f'A cinema has {a} rows of {b} seats. In total it has {a * b} seats.')
prompt = tf_jax.Prompt(
    tool='Calculator',
    instruction='Your task is to add calls to a calculator to a text. You write a call as '
                '[Calculator(expression)], right before a number that can be computed from earlier '
                'numbers. Here are some examples:',
    demonstrations=(
        'A shop had 620 pens and sold 175 of them. It still has [Calculator(620 - 175)] 445 pens.',
        'A hall has 34 rows of 26 chairs. In total it has [Calculator(34 * 26)] 884 chairs.'))
found = tf_jax.annotate(
    model, texts, tools=['calculator'], prompts={'calculator': prompt},
    config=tf_jax.AnnotationConfig(temperature=0.4, max_call_tokens=24, force_name=True),
    tool_configs={'calculator': tf_jax.ToolConfig(tau_s=0.0, k=4, m=2, tau_f=0.5)})
found

# %% [markdown]
# Every call is a point: how likely the model is to begin it, and how much its result helps.

# %%
calls = found.to_records()
plt.figure(figsize=(5, 3.5))
plt.scatter([call['probability'] for call in calls], [call['gain'] for call in calls], s=12,
            c=['tab:green' if call['gain'] >= 0.5 else 'tab:red' for call in calls])
plt.axhline(0.5, color='0.6', linestyle='--')
plt.axvline(0.05, color='0.6', linestyle=':')
plt.xscale('log')
plt.xlabel('probability of a call here; dotted: tau_s = 0.05')
plt.ylabel('gain (nats); dashed: tau_f = 0.5');

# %% [markdown]
# The paper's Table 2 counts the texts that keep a call, for three values of `tau_f`. Here calls are counted.

# %%
for tau_f in (0.5, 1.0, 2.0):
  print(f'tau_f {tau_f}: {sum(call["gain"] >= tau_f for call in calls)} of {len(calls)} calls')

# %% [markdown]
# ## What next
#
# - `toolformer view RUN` shows these losses for every call of an annotation, in a browser.
# - If nothing is kept, see
#   [when no call is kept](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/howto/no_calls_kept.md).
# - The code is short: [filter.py](https://github.com/toolformer-jax/toolformer_jax/blob/main/toolformer_jax/annotation/filter.py).
