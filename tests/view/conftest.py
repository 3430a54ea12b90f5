"""A run's folder as annotation writes it, of calls that each came as far as their kind says."""

from collections import Counter

import pytest

from toolformer_jax.annotation.early_rejection import REJECTED_POSITIONS, REJECTING_TEXTS
from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.annotation.run_reader import CALL_RECORDS, RunReader
from toolformer_jax.annotation.stage_keys import DOCUMENTS, stage_name
from toolformer_jax.data.records import ScoredCall, SelectedText, from_json, to_json


@pytest.fixture(scope='session')
def write_run(tokenizer):
  """Returns a function that writes a run; `chunks` are lists of documents.

  `rejected` are the positions that were rejected early: tool, document id, position.
  """
  def write(path, chunks, calls, tau_f, rejected=(), **settings):
    tools = {tool: {'tau_s': 0.1, 'k': 5, 'm': 5, 'tau_f': tau, **settings}
             for tool, tau in tau_f.items()}
    with RunFolder(path, {'tools': tools}, {}) as folder:
      tokenizer.save(path)
      first = 0
      for number, documents in enumerate(chunks):
        folder.write(DOCUMENTS, number, documents, Counter())
        ids = {document.id for document in documents}
        selected = [SelectedText(document.id, index)
                    for index, document in enumerate(documents, first)]
        first += len(documents)
        for tool in tau_f:
          folder.write(stage_name(tool, 'select'), number, selected, Counter())
          for stage, kind in CALL_RECORDS.items():
            of_stage = [from_json(kind, to_json(call)) for call in calls
                        if isinstance(call, kind) and call.tool == tool and call.document_id in ids]
            folder.write(stage_name(tool, stage), number, of_stage, _sample_counts(
                {place for place in rejected if place[0] == tool and place[1] in ids}
            ) if stage == 'sample' else Counter())
    return path
  return write


def _sample_counts(rejected):
  return Counter({REJECTED_POSITIONS: len(rejected),
                  REJECTING_TEXTS: len({document_id for _, document_id, _ in rejected})})


@pytest.fixture(scope='session')
def scored():
  """Returns a function that makes a call with losses."""
  def make(document_id, position, gain, argument='1 + 2', tool='Calculator', result='3', **losses):
    return ScoredCall(document_id, tool, argument, position, 0.25, result, None, **{
        'loss_no_call': 3.0, 'loss_call': 4.0, 'loss_result': 3.0 - gain, **losses})
  return make


@pytest.fixture(scope='session')
def chunk():
  """Returns a function that finds a file of a stage, `calculator/filter/00000.jsonl`."""
  def find(path, name):
    stage, _, file = name.rpartition('/')
    return RunReader(path).folder(stage) / file
  return find
