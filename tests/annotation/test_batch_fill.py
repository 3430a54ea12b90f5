"""Two hundred mixed documents, five tools: batches of the device are full, whatever a chunk is."""

import random

import pytest

import toolformer_jax as tf_jax
from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.annotation.result import AnnotationResult
from toolformer_jax.data.records import Document

from .test_reuse import stages

WORDS = ('the mill stands near a river and its wheel turns slowly when rain falls on hills where '
         'shepherds bring their flocks in spring before markets open again').split()
FOREIGN = ('El molino está cerca de un río y la rueda gira despacio cuando llueve en las montañas '
           'donde los pastores llevan sus rebaños en primavera.')
TOOLS = ('Calculator', 'Calendar', 'MT', 'QA', 'WikiSearch')
SELECTED = {'Calculator': (0.25, 0.75), 'Calendar': (0.1, 0.3)}  # of the texts


def mixed_document(number: int) -> Document:
  """Returns a document of 10 to 170 words; sums, dates and Spanish are in some of them."""
  draw = random.Random(number)
  sentences = []
  for _ in range(draw.choice((1, 2, 3, 12))):
    sentences.append(' '.join(draw.choices(WORDS, k=draw.randint(8, 14))).capitalize() + '.')
  if number % 2 == 0:
    a, b = draw.randint(2, 90), draw.randint(2, 90)
    sentences.insert(1, f'It has {a} sacks and {b} more, {a + b} sacks together.')
  if number % 10 == 3:
    sentences.insert(1, FOREIGN)
  date = f'2019-03-{number % 28 + 1:02}' if number % 11 < 2 else None
  return Document(f'd{number}', ' '.join(sentences), date=date)


def annotated(model, path, chunk: int) -> AnnotationResult:
  """Annotates all documents with five tools that repeat the beginning of their argument."""
  tools = [tf_jax.tool(lambda argument: f'<{argument[:5]}>', name=name) for name in TOOLS]
  # Windows of 32 texts, as in the default, and batches that fit a tiny model on a CPU.
  config = AnnotationConfig(
      force_name=True, max_call_tokens=6, temperature=3.0, window_documents=32,
      chunk_documents=chunk, sampling_rows=32, scoring_tokens=2048)
  settings = ToolConfig(tau_s=0.0, k=1, m=4, tau_f=-1.0)
  return tf_jax.annotate(
      model, [mixed_document(number) for number in range(200)], tools=tools, config=config,
      tool_configs={tool.lower(): settings for tool in TOOLS}, output_dir=path)


@pytest.mark.long
def test_batches_are_full_and_records_equal_whatever_the_size_of_a_chunk(
    make_eager_model, tmp_path):
  model = make_eager_model(max_positions=8192)
  results = {chunk: annotated(model, tmp_path / str(chunk), chunk) for chunk in (1024, 32)}
  whole = stages(tmp_path / '1024')
  assert sum(len(lines) for lines in whole.values())
  assert stages(tmp_path / '32') == whole
  assert results[32].report == results[1024].report
  for tool, summary in results[1024].tool_summaries.items():
    # Ten tokens of bytes are too short to tell a language: MT's heuristic selects most texts.
    least, most = SELECTED.get(tool, (0.5, 1.0))
    assert least <= summary.preselected / summary.texts <= most, tool
    assert set(summary.batch_fill) == {'sample', 'filter'}
    for stage, share in summary.batch_fill.items():
      assert share >= 0.8, (tool, stage, share)
