"""The whole way on two CPU cores in minutes: real model, real text, real tools.

    make quickstart

Fetches SmolLM2-135M-Instruct, word problems and a piece of Wikipedia; finds the calls to a
calculator and to a Wikipedia search that help the model to predict them; fine-tunes the model on
the texts with calls; lets it call the tools. Ends with a report, which is also in
runs/quickstart/report.md. Started again, it goes on where it was.
"""

import argparse
import hashlib
import itertools
import pathlib
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable

from toolformer_jax import cli
from toolformer_jax.annotation import report
from toolformer_jax.annotation.pipeline import Annotation, ToolPlan
from toolformer_jax.annotation.prompts import prompt_for
from toolformer_jax.annotation.run_dir import MERGED, RunFolder
from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.config import loading as configuration
from toolformer_jax.data.content_hash import identity
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.records import AnnotatedDocument, Document
from toolformer_jax.inference.engine import generate
from toolformer_jax.inference.request import Generated
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.run_dir import software_versions
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.base import Context, Tool
from toolformer_jax.tools.executor import Executor
from toolformer_jax.tools.registry import call_runner
from toolformer_jax.training.data import annotated_example
from toolformer_jax.training.finetune import evaluate_loss, finetune
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
  config = configuration.load(['quickstart.gin'])
  model = load_model(MODEL, config.model)
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
      key=lambda document: hashlib.sha256(document.id.encode()).digest())
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
    model: LanguageModel, config: configuration.Configuration, tool: Tool, source: str,
    corpus: list[Document], folder_path: pathlib.Path,
) -> tuple[str, list[AnnotatedDocument]]:
  """Annotates `corpus` with one tool; returns a section of the report and the texts with calls."""
  plan = ToolPlan(tool, config.tool_settings(tool.name), prompt_for(tool.name))
  annotation = Annotation(model, (plan,), config.annotation, config.syntax)
  described = {**annotation.configuration(), 'checkpoint': identity(MODEL),
               'corpus': identity(source), 'texts': digest(corpus)}
  with RunFolder(folder_path, described, software_versions()) as folder:
    annotation.run(lambda: corpus, folder)
    rows = report.tool_rows(folder, annotation.plans)
    kept, rejected = report.best_calls(folder, plan, 3)
    tables = [f'### {title}\n\n{report.call_table(folder, calls, model.tokenizer, config.syntax)}'
              for title, calls in (('Kept', kept), ('Rejected', rejected)) if calls]
    section = [f'## {tool.name} on {source}', report.tool_table(rows), *report.notes(rows[0]),
               *tables]
    return '\n\n'.join(section), list(folder.read_all(MERGED, AnnotatedDocument))


def digest(corpus: list[Document]) -> str:
  """Returns a hash of which texts were chosen: a folder is bound to them."""
  return hashlib.sha256('\0'.join(document.id for document in corpus).encode()).hexdigest()


def train(
    model: LanguageModel, config: configuration.Configuration, records: list[AnnotatedDocument],
    folder_path: pathlib.Path,
) -> tuple[LanguageModel, dict[str, tuple[float, float]]]:
  """Fine-tunes on the texts with calls; returns the model, and losses before and after."""
  of_tool = {tool: [record for record in records if record.calls[0].tool == tool]
             for tool in PROMPTS}
  def examples(chosen: Iterable[AnnotatedDocument]) -> list[Example]:
    return [annotated_example(record, model.tokenizer, config.syntax) for record in chosen]
  tuned = finetune(
      model=model, examples=examples(training_mix(of_tool.values())), settings=config.finetune,
      output_dir=folder_path, configuration={'checkpoint': identity(MODEL)},
      versions=software_versions())
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
    name: str, untuned: LanguageModel, tuned: LanguageModel, config: configuration.Configuration,
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
    model: LanguageModel, config: configuration.Configuration, tools: list[Tool],
    prompts: list[str],
) -> list[Generated]:
  """Returns the continuations of `prompts` with calls to `tools`."""
  with Executor(tools, syntax=config.syntax) as executor:
    return generate(
        model, [model.tokenizer.encode(prompt) for prompt in prompts], settings=config.generation,
        tool_names=[tool.name for tool in tools], syntax=config.syntax,
        run_call=call_runner(executor, [Context() for _ in prompts]))


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
