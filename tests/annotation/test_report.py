"""The report of an annotation run counts what is in its folder."""

import dataclasses
import re
from collections import Counter

import pytest
import tokenizers

from toolformer_jax.annotation import report
from toolformer_jax.annotation.config import ToolConfig
from toolformer_jax.annotation.early_rejection import (
  REJECTED_POSITIONS,
  REJECTING_TEXTS,
  TOKENS_SKIPPED,
)
from toolformer_jax.annotation.merge import merge
from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.annotation.stage_keys import DOCUMENTS, stage_name
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.annotation.tool_summary import tool_summaries
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import Candidate, Document, ScoredCall
from toolformer_jax.inference.batching import TOKENS_COMPUTED, TOKENS_NEEDED
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.tools.calculator import Calculator

TEXTS = [Document('a', 'One and two | make\nthree.'), Document('b', 'Four.')]
PLAN = ToolPlan(Calculator(), ToolConfig(tau_s=0.25, k=2, m=3, tau_f=0.75), CALCULATOR)


def scored(document_id: str, position: int, gain: float, argument: str = '1 + 2') -> ScoredCall:
  return ScoredCall(document_id, 'Calculator', argument, position, 0.5, '3', None,
                    loss_no_call=3.0, loss_call=4.0, loss_result=3.0 - gain)


SCORED = [
  scored('a', 3, 1.5), scored('a', 3, 2.5, '2 + 1'), scored('a', 8, 0.8),
  scored('b', 0, 0.5), scored('b', 1, 0.25),
]


@pytest.fixture
def folder(tmp_path):
  with RunFolder(tmp_path / 'run', {}, {}) as opened:
    counts = Counter({'read': 3, 'split': 1, 'documents': 2, 'with a call already': 1})
    opened.write(DOCUMENTS, 0, TEXTS, counts)
    opened.complete(DOCUMENTS)
    yield opened


def write_stage(folder, stage, records, complete=True, **counts):
  name = stage_name('Calculator', stage)
  folder.write(name, 0, records, Counter(counts))
  if complete:
    folder.complete(name)


def candidates(count: int) -> list[Candidate]:
  return [Candidate('a', 'Calculator', f'{i} + 1', 0, 0.5) for i in range(count)]


def write_whole_run(folder):
  write_stage(folder, 'sample', candidates(7), documents=2, positions=4, samples=12, malformed=5)
  write_stage(folder, 'execute', [], candidates=7, executed=5, **{
    'failed: Calculator: division by zero': 1,
    'failed: look-ahead: the argument has a number': 1,
  })
  write_stage(folder, 'filter', SCORED, scored=5)


def test_summary_counts_every_stage(folder):
  write_whole_run(folder)
  row, = tool_summaries(folder, [PLAN])
  assert (row.texts, row.preselected, row.positions, row.samples) == (2, 2, 4, 12)
  assert (row.candidates, row.executed, row.scored, row.max_gain) == (7, 5, 5, 2.5)
  # A place that two calls pass counts once, and a gain of just the threshold passes.
  assert row.kept == {0.5: 3, 0.75: 2, 1.0: 1, 2.0: 1}
  assert row.texts_kept == {t: len({c.document_id for c in SCORED if c.gain >= t})
                            for t in row.kept}
  assert row.failures == {'division by zero': 1, 'look-ahead': 1}
  assert row.incomplete_stage is None


@pytest.mark.parametrize('tau_f', [0.0, 0.5, 0.75, 1.0, 2.0, 3.0])
def test_kept_is_what_merging_keeps(folder, tau_f):
  write_whole_run(folder)
  row, = tool_summaries(folder, [ToolPlan(Calculator(), ToolConfig(tau_f=tau_f), CALCULATOR)])
  merged, _ = merge(TEXTS, SCORED, {'Calculator': tau_f})
  assert row.kept[tau_f] == sum(len(record.calls) for record in merged)
  assert row.texts_kept[tau_f] == len(merged)


def test_overview_has_a_line_for_the_tool_and_says_what_failed(folder):
  write_whole_run(folder)
  text = report.overview(folder, tool_summaries(folder, [PLAN]), max_text_tokens=192)
  assert '3 documents were read; 1 of them are longer than 192 tokens and were split' in text
  assert '1 texts with a call already were left out. That makes 2 texts.' in text
  assert '| Calculator | 2 | 2 | 4 | 12 | 7 | 5 | 5 | 0.75 | 2 | 2 | 1 | 1 |' in text.splitlines()
  assert '2 of 7 candidates have no result: 1 x division by zero, 1 x look-ahead.' in text
  assert 'no call is kept' not in text


# For each stage that drops everything: the stages' records and counts, and what the note says.
LOSSES = {
  'preselection': ([], {}, {}, [], 'none of 2 texts passes the heuristic'),
  'tau_s': ([], dict(documents=2), {}, [], 'nowhere in 2 texts .* above tau_s = 0.25'),
  'grammar': ([], dict(documents=2, positions=4, samples=12), {}, [],
              'all 12 samples are malformed'),
  'execution': (candidates(7), dict(documents=2, positions=4, samples=12), {'candidates': 7}, [],
                'none of 7 candidates has a result'),
  'filter': (candidates(7), dict(documents=2, positions=4, samples=12), {'executed': 2},
             [scored('a', 0, 0.25), scored('a', 1, -1.0)],
             'none of 2 calls gains tau_f = 0.75; the largest known gain is 0.25'),
}


@pytest.mark.parametrize('stage', LOSSES)
def test_note_names_the_stage_that_drops_everything(folder, stage):
  sampled, sample_counts, execute_counts, kept, message = LOSSES[stage]
  write_stage(folder, 'sample', sampled, **sample_counts)
  write_stage(folder, 'execute', [], **execute_counts)
  write_stage(folder, 'filter', kept)
  note, = report.notes(*tool_summaries(folder, [PLAN]))
  assert re.search(f'^Calculator: no call is kept; .*{message}', note)


def test_notes_tell_what_early_rejection_saved(folder):
  write_stage(folder, 'sample', [Candidate('a', 'Calculator', '1', 0, 0.5)], documents=2,
              positions=4, samples=12, **{REJECTED_POSITIONS: 2, REJECTING_TEXTS: 1})
  write_stage(folder, 'execute', [], candidates=3, executed=3)
  unknown = [dataclasses.replace(scored('a', i, 0.25), loss_call=None) for i in range(2)]
  write_stage(folder, 'filter', [scored('a', 5, 1.0), *unknown], scored=3,
              **{TOKENS_NEEDED: 30, TOKENS_COMPUTED: 60, TOKENS_SKIPPED: 10})
  row, = tool_summaries(folder, [PLAN])
  assert (row.positions, row.rejected_positions, row.scored, row.rejected_calls) == (4, 2, 3, 2)
  positions, losses = report.notes(row)
  assert 'no call was sampled at 2 of 6 positions (6 of 18 samples)' in positions
  assert ('the loss with an empty result was not computed for 2 of 3 calls (25% of the tokens of '
          'the filter)') in losses


def test_note_tells_that_all_positions_are_rejected(folder):
  write_stage(folder, 'sample', [], documents=2, **{REJECTED_POSITIONS: 2, REJECTING_TEXTS: 1})
  write_stage(folder, 'execute', [])
  write_stage(folder, 'filter', [])
  row, = tool_summaries(folder, [PLAN])
  assert report.notes(row)[-1] == (
      'Calculator: no call is kept; at all 2 positions the loss without a call is too low.')


def test_note_tells_an_unfinished_stage_from_an_empty_one(folder):
  write_stage(folder, 'sample', candidates(7), documents=2, positions=4, samples=12)
  write_stage(folder, 'execute', [], complete=False, candidates=7)
  row, = tool_summaries(folder, [PLAN])
  assert report.notes(row) == ['Calculator: stage execute is not complete.']


def test_best_calls_are_the_best_of_their_text_on_either_side_of_the_threshold(folder):
  write_whole_run(folder)
  tool, = tool_summaries(folder, [PLAN])
  assert tool.best_kept == (SCORED[1],)  # of the two places in its text the one that gains more
  assert tool.best_rejected == (SCORED[3],)


def test_summary_is_the_same_however_texts_are_divided_into_chunks(tmp_path):
  gains = [0.5, 3.0, 0.875, 0.875, -1.0, 2.0, 0.125, 1.0, 1.5, 0.875, 5.0, 0.625, 0.75, 2.5, 0.25,
           1.25]
  calls = [scored(f'd{i:02}', i % 3, gain) for i, gain in enumerate(gains)]
  found = []
  for size in (1, 4, len(calls)):
    with RunFolder(tmp_path / str(size), {}, {}) as opened:
      for chunk, first in enumerate(range(0, len(calls), size)):
        some = calls[first:first + size]
        opened.write(DOCUMENTS, chunk, [Document(call.document_id, '') for call in some],
                     Counter(documents=len(some)))
        opened.write(stage_name('Calculator', 'filter'), chunk, some, Counter())
      found += tool_summaries(opened, [PLAN])
  assert found[0] == found[1] == found[2]
  assert [call.gain for call in found[0].best_kept] == sorted(
      (gain for gain in gains if gain >= 0.75), reverse=True)[:10]
  assert [call.gain for call in found[0].best_rejected] == [0.625, 0.5, 0.25, 0.125, -1.0]


def test_call_table_shows_the_call_in_its_text_with_its_losses(folder):
  alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  letters = Tokenizer.byte_level_bpe(alphabet, [], [], split_digits=True, bos_id=None, eos_id=None)
  table = report.call_table([scored('a', 17, 1.5)], {'a': TEXTS[0].text}, letters, DEFAULT_SYNTAX)
  *_, line = table.splitlines()
  assert line == ('| One and two \\| mak **[Calculator(1 + 2) -> 3]**e three. '
                  '| 3.00 | 4.00 | 1.50 | 1.50 |')
