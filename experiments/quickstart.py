"""The whole pipeline on two CPU cores in minutes: real model, real text, real tools.

    make quickstart

Fetches SmolLM2-135M-Instruct, word problems and an excerpt of Wikipedia; finds the calls to a
calculator and to a Wikipedia search that help the model to predict these texts; fine-tunes the
model on the texts with calls; and lets it call the tools. Prints a report and writes it to
runs/quickstart/report.md. The same command continues a run that was stopped.
"""

import argparse
import dataclasses
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
from toolformer_jax.data.numbers import find_numbers
from toolformer_jax.data.records import AnnotatedDocument, Document
from toolformer_jax.inference.request import GeneratedText
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.base import Tool
from toolformer_jax.training.examples import annotated_example
from toolformer_jax.training.finetune import evaluate_loss, finetune_examples
from toolformer_jax.training.packing import Example

MODEL = 'smollm2-135m'
OPERATIONS = '+-*/'
PROBLEMS, MAX_PROBLEM_TOKENS = 256, 88
HELD_OUT_PROBLEMS = 50  # on which the expressions of the tuned model are checked
ALIKE = 16  # at most so many problems that differ in names and numbers alone
PARAGRAPHS, PARAGRAPH_TOKENS = 44, range(40, 97)
# Texts of the mix; those with a rare operation or tool are repeated, but not more often than this.
TRAINED, MOST_REPEATS = {'Calculator': 112, 'WikiSearch': 12}, 3
# Calls that add, subtract or divide are rare: the calculator's are sampled more variously.
TEMPERATURES = {'Calculator': 0.8}
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
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output_dir', type=pathlib.Path, default=pathlib.Path('runs/quickstart'))
  output = parser.parse_args().output_dir
  cli.log_to_stderr()
  start = time.monotonic()
  config = load(['quickstart.gin'])
  model = tf_jax.load_model(MODEL, config=config.model)
  tools = config.toolbox.build(['calculator', 'wikisearch'])
  sections, records = [], []
  texts, held_out = corpora(model.tokenizer)
  for tool, (source, corpus) in zip(tools, texts.items(), strict=True):
    section, annotated = annotate(model, config, tool, source, corpus, output / tool.name.lower())
    sections.append(section)
    records += annotated
  tuned, losses = train(model, config, records, output / 'model')
  sections += [loss_table(losses), expression_table(tuned, config, tools[0], held_out),
               examples(MODEL, model, tuned, config, tools)]
  minutes = (time.monotonic() - start) / 60
  text = '\n\n'.join(['# Quickstart', *sections, f'This run took {minutes:.1f} minutes.']) + '\n'
  (output / 'report.md').write_text(text, 'utf-8')
  print(text)


@dataclasses.dataclass(frozen=True)
class Derived:
  """A number in the solution of a problem that one operation makes of two numbers before it."""

  operation: str
  value: float
  start: int


def corpora(tokenizer: Tokenizer) -> tuple[dict[str, list[Document]], list[Document]]:
  """Returns the texts for each tool, and problems that are held out.

  The calculator gets as many generated problems of each operation, the search paragraphs that
  people wrote.
  """
  wanted = {operation: PROBLEMS // len(OPERATIONS) for operation in OPERATIONS}
  held_out = {operation: -(-HELD_OUT_PROBLEMS // len(OPERATIONS)) for operation in OPERATIONS}
  alike, problems, later = Counter(), [], []
  for document in read_corpus('word-problems'):
    derived = derived_number(document.text)
    skeleton = re.sub(r'\d[\d,.]*|[A-Z]\w*', '#', document.text)
    if derived is None or len(tokenizer.encode(document.text)) > MAX_PROBLEM_TOKENS:
      continue
    alike[skeleton] += 1
    for chosen, left in ((problems, wanted), (later, held_out)):
      if alike[skeleton] <= ALIKE and left[derived.operation]:
        left[derived.operation] -= 1
        chosen.append(document)
        break
  paragraphs = sorted(
      (document for document in read_corpus('wikipedia-sample')
       if len(tokenizer.encode(document.text)) in PARAGRAPH_TOKENS),
      key=lambda document: stable_hash(document.id))
  return ({'word-problems': problems, 'wikipedia-sample': paragraphs[:PARAGRAPHS]},
          later[:HELD_OUT_PROBLEMS])


def derived_number(problem: str) -> Derived | None:
  """Returns the first number of the solution that a call can find, and a model can hardly guess.

  Exactly one operation makes it of two numbers that the text states before it, and those or the
  result are large: what is easier the model mostly guesses by itself, so that no call can lower its
  loss by much. A text without a question is all solution.
  """
  solution, stated = problem.rfind('? '), []
  for number in find_numbers(problem):
    value = round(float(abs(number.value)), 2)
    if number.start > solution and value not in stated:
      found = {operation for pair in itertools.combinations(stated, 2)
               for operation, result in hard_results(max(pair), min(pair)).items()
               if result == value}
      if len(found) == 1:
        return Derived(found.pop(), value, number.digits_start)
    stated.append(value)
  return None


def hard_results(large: float, small: float) -> dict[str, float]:
  """Returns what the operations make of two numbers, to two decimals, where that is hard."""
  results = {'+': large + small, '-': large - small, '*': large * small,
             '/': large / small if small else 0.0}
  hard = {'+': small >= 100, '-': large >= 100 and small >= 20, '*': large * small >= 100,
          '/': large >= 100 and results['/'] >= 20}
  return {operation: round(result, 2) for operation, result in results.items()
          if hard[operation] and small > 1}


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
      depends_on={'checkpoint': identity(MODEL), 'corpus': identity(source),
                  'texts': digest(corpus)})
  row = result.tool_summaries[tool.name]
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
      model=model, examples=examples(training_mix(of_tool)), config=config.finetune,
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


def training_mix(of_tool: dict[str, list[AnnotatedDocument]]) -> list[AnnotatedDocument]:
  """Returns the texts to train on, about as many with each operation of the calculator.

  A model proposes products far more often than sums; without this it would learn to multiply
  whatever is asked. Rare texts are repeated.
  """
  mix = []
  for tool, records in of_tool.items():
    groups: dict[str, list[AnnotatedDocument]] = {}
    for i, record in enumerate(records):
      if i % HELD_OUT_EVERY:
        groups.setdefault(operation(record), []).append(record)
    share = TRAINED[tool] // max(len(groups), 1)
    for _, seen in sorted(groups.items()):
      mix += (seen * MOST_REPEATS)[:share]
  return mix


def operation(record: AnnotatedDocument) -> str:
  """Returns the operation of a text's first call; '' for none, or several."""
  found = set(re.findall(r'(?<=[\d)]) *([-+*/])', record.calls[0].argument))
  return found.pop() if len(found) == 1 else ''


def expression_table(model: LanguageModel, config: RunConfig, calculator: Tool,
                     problems: list[Document]) -> str:
  """Lets the model continue problems before a derived number; counts calls that result in it."""
  derived = [derived_number(problem.text) for problem in problems]
  prompts = [problem.text[:number.start].rstrip()
             for problem, number in zip(problems, derived, strict=True)]
  short = dataclasses.replace(config.generation, max_tokens=8)
  outputs = tf_jax.generate(model, prompts, tools=[calculator], config=short,
                            engine_config=config.engine, syntax=config.syntax)
  right, called, asked = Counter(), Counter(), Counter()
  for number, output in zip(derived, outputs, strict=True):
    asked[number.operation] += 1
    results = [made.call.result for made in output.calls if made.call.result is not None]
    called[number.operation] += bool(results)
    right[number.operation] += bool(results) and abs(float(results[0]) - number.value) < 0.01
  rows = [['operation', 'problems held out', 'with a call', 'right expression']]
  rows += [[name, asked[name], called[name], right[name]] for name in OPERATIONS]
  rows.append(['all', asked.total(), called.total(),
               f'{right.total()} ({right.total() / max(asked.total(), 1):.0%})'])
  return '\n\n'.join(['## Expressions', markdown_table(rows)])


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
                         engine_config=config.engine, executor_config=config.executor,
                         syntax=config.syntax)


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
