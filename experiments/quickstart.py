"""The whole way on two CPU cores in minutes: real model, real text, real tools.

    make quickstart

Fetches SmolLM2-135M-Instruct, word problems and a piece of Wikipedia; finds the calls to a
calculator and to a Wikipedia search that help the model to predict them; fine-tunes the model on
the texts with calls; lets it call the tools. Ends with a report, which is also in
runs/quickstart/report.md. Started again, it goes on where it was.
"""

import argparse
import itertools
import pathlib
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.annotation import report
from toolformer_jax.config.loading import RunConfig, load
from toolformer_jax.data.content_hash import identity, stable_hash
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.records import AnnotatedDocument, Document
from toolformer_jax.inference.request import GeneratedText
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.base import Tool
from toolformer_jax.training.data import annotated_example
from toolformer_jax.training.finetune import evaluate_loss, finetune_examples
from toolformer_jax.training.packing import Example

MODEL = 'smollm2-135m'
WORD_PROBLEMS, MAX_PROBLEM_TOKENS = 288, 88
ALIKE = 16  # at most so many problems that differ in names and numbers alone
PARAGRAPHS, PARAGRAPH_TOKENS = 44, range(40, 97)
TRAINED_PER_TOOL = 56  # texts; those with the rarer call are repeated to make as many
HELD_OUT_EVERY = 8  # of the texts with calls, one in so many is not trained on
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
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--output_dir', type=pathlib.Path, default=pathlib.Path('runs/quickstart'))
  output = parser.parse_args().output_dir
  cli.log_to_stderr()
  start = time.monotonic()
  config = load(['quickstart.gin'])
  model = tf_jax.load_model(MODEL, config=config.model)
  tools = config.toolbox.build(['calculator', 'wikisearch'])
  sections, records = [], []
  for tool, (source, corpus) in zip(tools, corpora(model.tokenizer).items(), strict=True):
    section, annotated = annotate(model, config, tool, source, corpus, output / tool.name.lower())
    sections.append(section)
    records += annotated
  tuned, losses = train(model, config, records, output / 'model')
  sections += [loss_table(losses), examples(MODEL, model, tuned, config, tools)]
  minutes = (time.monotonic() - start) / 60
  text = '\n\n'.join(['# Quickstart', *sections, f'This run took {minutes:.1f} minutes.']) + '\n'
  (output / 'report.md').write_text(text, 'utf-8')
  print(text)


def corpora(tokenizer: Tokenizer) -> dict[str, list[Document]]:
  """Returns the texts for each tool: generated problems, and paragraphs that people wrote."""
  alike = Counter()
  def chosen(document: Document) -> bool:
    if not (states_hard_result(document.text)
            and len(tokenizer.encode(document.text)) <= MAX_PROBLEM_TOKENS):
      return False
    skeleton = re.sub(r'\d[\d,.]*|[A-Z]\w*', '#', document.text)
    alike[skeleton] += 1
    return alike[skeleton] <= ALIKE
  problems = filter(chosen, read_corpus('word-problems'))
  paragraphs = sorted(
      (document for document in read_corpus('wikipedia-sample')
       if len(tokenizer.encode(document.text)) in PARAGRAPH_TOKENS),
      key=lambda document: stable_hash(document.id))
  return {'word-problems': list(itertools.islice(problems, WORD_PROBLEMS)),
          'wikipedia-sample': paragraphs[:PARAGRAPHS]}


def states_hard_result(problem: str) -> bool:
  """Tells whether the solution states a number that a model can hardly guess, and a call can find.

  It has three digits or more, and is the product of two numbers that the text states before it, or
  the sum or difference of two such large ones. What is easier the model mostly guesses by itself,
  so that no call can lower its loss by much. A text without a question is all solution.
  """
  solution = problem.rfind('? ')
  stated = []
  for match in re.finditer(r'\d[\d,]*(?:\.\d+)?', problem):
    value = round(float(match[0].replace(',', '')), 2)
    if match.start() > solution and value >= 100 and value not in stated:
      for x, y in itertools.combinations(stated, 2):
        sums = (x + y, abs(x - y)) if min(x, y) >= 100 else ()
        if value in (round(x * y, 2), *sums):
          return True
    stated.append(value)
  return False


def annotate(
    model: LanguageModel, config: RunConfig, tool: Tool, source: str, corpus: list[Document],
    folder: pathlib.Path,
) -> tuple[str, list[AnnotatedDocument]]:
  """Annotates `corpus` with one tool; returns a section of the report and the texts with calls."""
  name = tool.name.lower()
  result = tf_jax.annotate(
      model, corpus, tools=[tool], output_dir=folder, config=config.annotation,
      tool_configs={name: config.tool_config(name)}, limits=config.executor,
      syntax=config.syntax,
      depends_on={'checkpoint': identity(MODEL), 'corpus': identity(source),
                  'texts': digest(corpus)})
  row = result.counts[tool.name]
  section = [f'## {tool.name} on {source}', report.tool_table([row]), *report.notes(row),
             result.best_calls]
  return '\n\n'.join(section), list(result.annotated)


def digest(corpus: list[Document]) -> str:
  """Returns a hash of which texts were chosen: a folder is bound to them."""
  return stable_hash(*(document.id for document in corpus)).hex()


def train(
    model: LanguageModel, config: RunConfig, records: list[AnnotatedDocument],
    folder: pathlib.Path,
) -> tuple[LanguageModel, dict[str, tuple[float, float]]]:
  """Fine-tunes on the texts with calls; returns the model, and losses before and after."""
  of_tool = {tool: [record for record in records if record.calls[0].tool == tool]
             for tool in PROMPTS}
  def examples(chosen: Iterable[AnnotatedDocument]) -> list[Example]:
    return [annotated_example(record, model.tokenizer, config.syntax) for record in chosen]
  tuned = finetune_examples(
      model=model, examples=examples(training_mix(of_tool.values())), config=config.finetune,
      output_dir=folder, depends_on={'checkpoint': identity(MODEL)})
  if tuned is None:  # SIGTERM
    raise KeyboardInterrupt
  losses = {}
  for tool, some in of_tool.items():
    held_out = examples(some[::HELD_OUT_EVERY])
    if not held_out:
      continue
    losses[f'{len(held_out)} with {tool}'] = tuple(
        evaluate_loss(which, held_out, config.finetune) for which in (model, tuned))
  return tuned, losses


def training_mix(of_tool: Iterable[list[AnnotatedDocument]]) -> list[AnnotatedDocument]:
  """Returns as many texts with each tool: the first ones, repeated where there are too few."""
  mix = []
  for records in of_tool:
    seen = [record for i, record in enumerate(records) if i % HELD_OUT_EVERY]
    mix += itertools.islice(itertools.cycle(seen), TRAINED_PER_TOOL)
  return mix


def loss_table(losses: dict[str, tuple[float, float]]) -> str:
  """Returns the losses on texts with calls in Markdown."""
  lines = [f'| {name} | {before:.3f} | {after:.3f} |' for name, (before, after) in losses.items()]
  return '\n'.join([
      '## Fine-tuning', '', '| texts held out | loss before (nats per token) | after |',
      '| --- | --- | --- |', *lines])


def examples(
    name: str, untuned: LanguageModel, tuned: LanguageModel, config: RunConfig,
    tools: list[Tool],
) -> str:
  """Lets both models continue fresh prompts, with the same tools at hand."""
  prompts = [prompt for group in PROMPTS.values() for prompt in group]
  rows = {title: continue_all(model, config, tools, prompts)
          for title, model in ((name, untuned), ('tuned', tuned))}
  lines = ['## Fresh prompts']
  for i, prompt in enumerate(prompts):
    lines += ['', f'> {prompt}', '']
    lines += [f'- {title}: {" ".join(rows[title][i].text.split())}' for title in rows]
  return '\n'.join(lines)


def continue_all(
    model: LanguageModel, config: RunConfig, tools: list[Tool], prompts: list[str],
) -> list[GeneratedText]:
  """Returns the continuations of `prompts` with calls to `tools`."""
  return tf_jax.generate(model, prompts, tools=tools, config=config.generation,
                         engine_config=config.engine, limits=config.executor,
                         syntax=config.syntax)


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
