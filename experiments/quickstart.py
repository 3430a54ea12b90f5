"""The whole pipeline on two CPU cores in minutes: real model, real text, real tools.

    make quickstart

Fetches SmolLM2-135M-Instruct, word problems and an excerpt of Wikipedia; finds the calls to a
calculator and to a Wikipedia search that help the model to predict these texts; fine-tunes the
model on the texts with calls; and lets it call the tools. Prints a report and writes it to
runs/quickstart/report.md. The same command continues a run that was stopped.
"""

import argparse
import dataclasses
import pathlib
import sys
import time
from collections import Counter
from collections.abc import Iterable

from quickstart_corpora import (
  OPERATIONS,
  derived_number,
  operation_of,
  paragraphs,
  word_problems,
)

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.annotation import report
from toolformer_jax.config.loading import RunConfig, load
from toolformer_jax.data.content_hash import content_fingerprint, stable_hash
from toolformer_jax.data.records import AnnotatedDocument, Document
from toolformer_jax.inference.request import GeneratedText
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.tools.base import Tool
from toolformer_jax.training.examples import annotated_example
from toolformer_jax.training.finetune import evaluate_loss, finetune_examples
from toolformer_jax.training.packing import Example

MODEL = 'smollm2-135m'
# Texts of an epoch. Those of a rare operation or tool are repeated, but at most MAX_REPEATS times.
TRAINED_TEXTS, MAX_REPEATS = {'Calculator': 112, 'WikiSearch': 12}, 3
# The model prefers products: other operations need samples at a higher temperature.
TEMPERATURES = {'Calculator': 0.8}
HELD_OUT_EVERY = 8  # every eighth text with calls is not trained on, to measure the loss
PROMPTS = {
    'Calculator': (
        'Kate picks 152 cherries on Monday. Then she picks 274 cherries on Tuesday. How many '
        'cherries does she have? Combining Monday and Tuesday, Kate has',
        'There are 58 goats in the field. If there are 7 times the number of sheep in the field, '
        'how many animals are in the field? There are',
        'Each shelf can hold 46 books. If Nora has 400 books and 8 shelves, how many books does '
        'she have to leave on the floor? Nora will be able to place a total of'),
    'WikiSearch': (
        'The aardvark is a nocturnal mammal that lives in Africa. It feeds on',
        'Angola is a country in southern Africa. It is divided into',
        'Alaska is the largest state of the United States. It lies'),
}


def main() -> None:
  """Runs everything that is still to do, and prints the report."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output_dir', type=pathlib.Path, default=pathlib.Path('runs/quickstart'))
  output = parser.parse_args().output_dir
  cli.log_to_stderr()
  start = time.monotonic()
  config = load(['quickstart.gin'])
  model = tf_jax.load_model(MODEL, config=config.model)
  calculator, search = config.toolbox.build(['calculator', 'wikisearch'])
  problems, held_out = word_problems(model.tokenizer)
  sections, records = [], []
  for tool, source, corpus in ((calculator, 'word-problems', problems),
                               (search, 'wikipedia-sample', paragraphs(model.tokenizer))):
    section, annotated = annotate(model, config, tool, source, corpus, output / tool.name.lower())
    sections.append(section)
    records += annotated
  tuned, losses = train(model, config, records, output / 'model')
  sections += [loss_table(losses), expression_table(tuned, config, calculator, held_out),
               continuations(MODEL, model, tuned, config, [calculator, search])]
  minutes = (time.monotonic() - start) / 60
  text = '\n\n'.join(['# Quickstart', *sections, f'This run took {minutes:.1f} minutes.']) + '\n'
  (output / 'report.md').write_text(text, 'utf-8')
  print(text)


def annotate(
    model: LanguageModel, config: RunConfig, tool: Tool, source: str, corpus: list[Document],
    folder: pathlib.Path,
) -> tuple[str, list[AnnotatedDocument]]:
  """Annotates `corpus` with one tool; returns a section of the report and the texts with calls."""
  name = tool.name.lower()
  result = tf_jax.annotate(
      model, corpus, tools=[tool], output_dir=folder, config=dataclasses.replace(
          config.annotation,
          temperature=TEMPERATURES.get(tool.name, config.annotation.temperature)),
      tool_configs={name: config.tool_config(name)}, executor_config=config.executor,
      syntax=config.syntax,
      # The folder belongs to these texts: another choice of them is refused.
      depends_on={'checkpoint': content_fingerprint(MODEL), 'corpus': content_fingerprint(source),
                  'texts': stable_hash(*(document.id for document in corpus)).hex()})
  row = result.tool_summaries[tool.name]
  section = [f'## {tool.name} on {source}', report.tool_table([row]), *report.notes(row),
             result.best_calls]
  return '\n\n'.join(section), list(result.annotated)


def train(
    model: LanguageModel, config: RunConfig, records: list[AnnotatedDocument],
    folder: pathlib.Path,
) -> tuple[LanguageModel, dict[str, tuple[float, float]]]:
  """Fine-tunes on the texts with calls; returns the model, and losses before and after."""
  by_tool = {tool: [record for record in records if record.calls[0].tool == tool]
             for tool in PROMPTS}
  def examples(chosen: Iterable[AnnotatedDocument]) -> list[Example]:
    return [annotated_example(record, model.tokenizer, config.syntax) for record in chosen]
  tuned = finetune_examples(
      model=model, examples=examples(training_mix(by_tool)), config=config.finetune,
      output_dir=folder, depends_on={'checkpoint': content_fingerprint(MODEL)})
  if tuned is None:  # SIGTERM
    raise KeyboardInterrupt
  losses = {}
  for tool, texts in by_tool.items():
    held_out = examples(texts[::HELD_OUT_EVERY])
    if held_out:
      losses[f'{len(held_out)} with {tool}'] = tuple(
          evaluate_loss(which, held_out, config.finetune) for which in (model, tuned))
  return tuned, losses


def training_mix(by_tool: dict[str, list[AnnotatedDocument]]) -> list[AnnotatedDocument]:
  """Returns the texts of an epoch, about the same number for each operation of the calculator.

  The model proposes some operations far more often than others. Without balance, it would learn to
  use the most frequent one in every problem.
  """
  mix = []
  for tool, records in by_tool.items():
    groups: dict[str, list[AnnotatedDocument]] = {}
    for i, record in enumerate(records):
      if i % HELD_OUT_EVERY:
        groups.setdefault(operation_of(record), []).append(record)
    share = TRAINED_TEXTS[tool] // max(len(groups), 1)
    for _, texts in sorted(groups.items()):
      mix += (texts * MAX_REPEATS)[:share]
  return mix


def expression_table(model: LanguageModel, config: RunConfig, calculator: Tool,
                     problems: list[Document]) -> str:
  """Cuts problems before a derived number, and counts the calls of `model` that compute it."""
  derived = [derived_number(problem.text) for problem in problems]
  prompts = [problem.text[:number.start].rstrip()
             for problem, number in zip(problems, derived, strict=True)]
  short = dataclasses.replace(config.generation, max_tokens=8)
  outputs = tf_jax.generate(model, prompts, tools=[calculator], config=short,
                            engine_config=config.engine, syntax=config.syntax)
  right, called, total = Counter(), Counter(), Counter()
  for number, output in zip(derived, outputs, strict=True):
    total[number.operation] += 1
    results = [made.call.result for made in output.calls if made.call.result is not None]
    called[number.operation] += bool(results)
    right[number.operation] += bool(results) and abs(float(results[0]) - number.value) < 0.01
  rows = [['operation', 'held-out problems', 'with a call', 'right expression']]
  rows += [[name, total[name], called[name], right[name]] for name in OPERATIONS]
  rows.append(['all', total.total(), called.total(),
               f'{right.total()} ({right.total() / max(total.total(), 1):.0%})'])
  return '\n\n'.join(['## Expressions', markdown_table(rows)])


def loss_table(losses: dict[str, tuple[float, float]]) -> str:
  """Returns a Markdown table of the losses on texts with calls."""
  lines = [f'| {name} | {before:.3f} | {after:.3f} |' for name, (before, after) in losses.items()]
  return '\n'.join([
      '## Fine-tuning', '', '| held-out texts | loss before (nats per token) | after |',
      '| --- | --- | --- |', *lines])


def continuations(
    name: str, untuned: LanguageModel, tuned: LanguageModel, config: RunConfig,
    tools: list[Tool],
) -> str:
  """Lets both models continue new prompts, with the same tools."""
  prompts = [prompt for group in PROMPTS.values() for prompt in group]
  outputs = {title: continue_all(model, config, tools, prompts)
             for title, model in ((name, untuned), ('tuned', tuned))}
  lines = ['## New prompts']
  for i, prompt in enumerate(prompts):
    lines += ['', f'> {prompt}', '']
    lines += [f'- {title}: {" ".join(outputs[title][i].text.split())}' for title in outputs]
  return '\n'.join(lines)


def continue_all(
    model: LanguageModel, config: RunConfig, tools: list[Tool], prompts: list[str],
) -> list[GeneratedText]:
  """Returns the continuations of `prompts` with calls to `tools`."""
  return tf_jax.generate(model, prompts, tools=tools, config=config.generation,
                         engine_config=config.engine, executor_config=config.executor,
                         syntax=config.syntax)


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
