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
# # Reproduce a table
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/toolformer-jax/toolformer_jax/blob/main/colab/reproduce_a_table.ipynb)
#
# An experiment annotates a corpus, fine-tunes a model on it, and evaluates it, as one command with one gin file.
# This notebook runs the paper's Table 4 in miniature (word problems), as a small grid, and draws its figure.
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
import json
import pathlib
import random

from IPython.display import Image, Markdown

SMALL = DEVICE == 'cpu'

# %% [markdown]
# ## 1. Word problems
#
# For the real table, `toolformer fetch svamp` brings the benchmark. To be quick, these problems are made here, in
# SVAMP's format; those that the model learns from have other sentences than those that it is asked.

# %%
LEARNED = [
    ('A farm has {a} sheep and {b} goats.', 'How many animals are there?', '+'),
    ('A library had {a} books and sold {b} of them.', 'How many books are left?', '-'),
    ('A town has {a} cats and {b} dogs.', 'How many pets are there?', '+'),
    ('A shop had {a} pens and lost {b} of them.', 'How many pens are left?', '-')]
ASKED = [
    ('A zoo has {a} birds and {b} fish.', 'How many animals are there?', '+'),
    ('A school had {a} chairs and broke {b} of them.', 'How many chairs are left?', '-')]


def problems(kinds, count, seed):
  """Yields `count` problems: a story, its question and the answer."""
  rng = random.Random(seed)
  for i in range(count):
    story, question, operation = kinds[i % len(kinds)]
    b, a = sorted(rng.sample(range(101, 900), 2))
    yield story.format(a=a, b=b), question, a + b if operation == '+' else a - b


with open('texts.jsonl', 'w') as file:
  for story, question, answer in problems(LEARNED, 20 if SMALL else 400, seed=0):
    print(json.dumps({'text': f'{story} {question} The answer is {answer}.'}), file=file)

pathlib.Path('benchmarks/svamp').mkdir(parents=True, exist_ok=True)
pathlib.Path('benchmarks/svamp/SVAMP.json').write_text(json.dumps([
    {'ID': str(i), 'Body': story, 'Question': question, 'Answer': answer}
    for i, (story, question, answer) in enumerate(problems(ASKED, 8 if SMALL else 200, seed=1))]));

# %% [markdown]
# ## 2. The experiment, in gin
#
# A gin file states what departs from the paper. This one includes the quickstart's settings for small models,
# and names the model, the tool, the benchmark and the arms: the same tuned model without and with the tool.

# %%
STEPS = 12 if SMALL else 100
pathlib.Path('table4.gin').write_text(f'''
include 'quickstart.gin'
ExperimentConfig.title = 'Table 4 in miniature'
CHECKPOINT = 'smollm2-135m'
CORPUS = 'texts.jsonl'
DATA_DIR = 'benchmarks'
TOOLS = ['calculator']
TASKS = ['svamp']
ARMS = 'disabled,toolformer'
calculator/ToolConfig.prompt = 'problems.txt'
calculator/ToolConfig.k = 2
calculator/ToolConfig.m = 3
FinetuneConfig.steps = {STEPS}
FinetuneConfig.batch_rows = 2
FinetuneConfig.learning_rate = 2e-3
MixtureConfig.dev_texts = 0
''');

# %% [markdown]
# The prompt has demonstrations of calls in such texts.

# %%
pathlib.Path('problems.txt').write_text('''
Your task is to add calls to a calculator to a text. You write a call as [Calculator(expression)],
right before a number that can be computed from earlier numbers. Here are some examples:

A school has 415 girls and 388 boys. How many children are there?
The answer is [Calculator(415 + 388)] 803.

A bakery had 620 rolls and sold 175 of them. How many rolls are left?
The answer is [Calculator(620 - 175)] 445.

A park has 234 oaks and 319 pines. How many trees are there?
The answer is [Calculator(234 + 319)] 553.
''');

# %% [markdown]
# ## 3. A grid
#
# A grid changes one thing at a time. This one asks how much a quarter of the training is worth. The package has
# the ablations of the paper, in `experiments/ablations`.

# %%
pathlib.Path('fewer_steps.gin').write_text(f'''
FinetuneConfig.steps = {STEPS // 4}
''')
pathlib.Path('grid.gin').write_text('''
include 'table4.gin'
GridConfig.ablations = ('fewer_steps.gin',)
''');

# %% [markdown]
# `--dry_run` prints the cells and the stages that they share: the annotation is done once.

# %%
# !toolformer experiment --gin_file grid.gin --output_dir runs/grid --dry_run

# %% [markdown]
# Without it, all that is left is run. The same command goes on after an interruption.

# %%
# !toolformer experiment --gin_file grid.gin --output_dir runs/grid > log.txt 2>&1

# %% [markdown]
# ## 4. The table and the figure
#
# The report has the scores with intervals, and the differences between the arms. Eight problems are far too few
# for a conclusion, as the intervals say.

# %%
report = pathlib.Path('runs/grid/report.md').read_text()
Markdown(report)

# %% [markdown]
# The figure has the effect of fewer steps on the score with the tool, with its interval.

# %%
Image('runs/grid/figures/ablations.png')

# %% [markdown]
# With the tool, the model must solve more of the problems than without it. `scores.json` has the scores
# for programs.

# %%
scores = json.loads(pathlib.Path('runs/grid/scores.json').read_text())['scores']
by_arm = {one['arm']: one['score']['value'] for one in scores if one['ablation'] == 'base'}
assert by_arm['toolformer'] > by_arm['disabled']

# %% [markdown]
# The evaluation of one cell, as `toolformer evaluate` writes it.

# %%
cell = pathlib.Path('runs/grid/model/base/seed0/report.md').read_text()
print(cell[:1500])

# %% [markdown]
# ## What next
#
# - `--gin_file experiments/table4_math.gin --gin_file models/gptj_6b.gin` is the table of the paper.
# - [Experiments](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/experiments.md): sizes, seeds,
#   schedulers, and how the intervals are computed.
# - [Results](https://github.com/toolformer-jax/toolformer_jax/blob/main/docs/results.md) of the package's own runs.
