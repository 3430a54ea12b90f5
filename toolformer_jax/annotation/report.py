"""The report of an annotation run, in Markdown."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

from toolformer_jax.annotation.config import THRESHOLDS
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.annotation.stage_keys import DOCUMENTS, stage_name
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.annotation.tool_summary import ToolSummary
from toolformer_jax.calls import CallSyntax
from toolformer_jax.data.records import ScoredCall
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.tokenizer import Tokenizer

_CONTEXT_CHARS = 60


def overview(run: RunReader, summaries: Sequence[ToolSummary], max_text_tokens: int) -> str:
  """Returns a sentence on the corpus, a table with a row for each tool, and notes."""
  paragraphs = [corpus_line(run, max_text_tokens), tool_table(summaries),
                settings_line(summaries), batch_line(summaries),
                *(note for summary in summaries for note in notes(summary))]
  return '\n\n'.join(filter(None, paragraphs))


def corpus_line(run: RunReader, max_text_tokens: int) -> str:
  """Returns a sentence on the documents of the corpus."""
  counts = run.counts(DOCUMENTS)
  dropped = ''.join(f'; {counts[reason]} texts {reason} were left out'
                    for reason in ('with a call already', 'with unknown characters')
                    if counts[reason])
  return (f'{counts["read"]} documents were read; {counts["split"]} of them are longer than '
          f'{max_text_tokens} tokens and were split{dropped}. '
          f'That makes {counts["documents"]} texts.')


def tool_table(summaries: Iterable[ToolSummary]) -> str:
  """Returns a table with the numbers of texts and calls of each tool after each stage."""
  lines: list[list[object]] = [[
      'tool', 'texts', 'preselected', 'positions', 'samples', 'candidates', 'executed',
      'scored', 'tau_f', 'kept', *(f'texts >= {t}' for t in THRESHOLDS)]]
  for summary in summaries:
    tau_f = summary.plan.config.tau_f
    lines.append([summary.name, summary.texts, summary.preselected, summary.positions,
                  summary.samples, summary.candidates, summary.executed, summary.scored, tau_f,
                  summary.kept[tau_f], *(summary.texts_kept[t] for t in THRESHOLDS)])
  return markdown_table(lines)


def settings_line(summaries: Iterable[ToolSummary]) -> str:
  """Returns a sentence on the settings of each tool."""
  tools = '; '.join(
      f'{summary.name} tau_s = {config.tau_s:g}, k = {config.k}, m = {config.m}, '
      f'tau_f = {config.tau_f:g}' for summary in summaries for config in [summary.plan.config])
  return f'Settings: {tools}.'


def batch_line(summaries: Iterable[ToolSummary]) -> str:
  """Returns a sentence on how full the device's batches were; '' if there were none."""
  tools = '; '.join(
      f'{summary.name} ' + ', '.join(f'{stage} {share:.0%}'
                                     for stage, share in summary.batch_fill.items())
      for summary in summaries if summary.batch_fill)
  return f'Needed tokens in the batches of the device: {tools}.' if tools else ''


def notes(summary: ToolSummary) -> list[str]:
  """Returns sentences on calls without a result, and on the stage that left no call."""
  name, config = summary.name, summary.plan.config
  found = []
  if summary.failures:
    reasons = ', '.join(f'{n} x {reason}' for reason, n in summary.failures.most_common(5))
    found.append(f'{name}: {summary.failures.total()} of {summary.candidates} candidates have no '
                 f'result: {reasons}.')
  if summary.rejected_positions:
    rejected, m = summary.rejected_positions, config.m
    found.append(f'{name}: no call was sampled at {rejected} of {rejected + summary.positions} '
                 f'positions ({rejected * m} of {rejected * m + summary.samples} samples), where '
                 'the loss without a call is so low that none can be kept.')
  if summary.rejected_calls:
    found.append(f'{name}: the loss with an empty result was not computed for '
                 f'{summary.rejected_calls} of {summary.scored} calls '
                 f'({summary.skipped_tokens:.0%} of the tokens of the filter), which are rejected '
                 'without it.')
  if summary.rescored:
    found.append(f'{name}: {summary.rescored} of {summary.scored} calls were scored again in '
                 'float32, as a decision may depend on their gain.')
  stages = (
      (summary.texts, 'the corpus has no text'),
      (summary.preselected, f'none of {summary.texts} texts passes the heuristic of preselection'),
      (summary.positions + summary.rejected_positions,
       f'nowhere in {summary.preselected} texts does a call start with a probability above '
       f'tau_s = {config.tau_s}{_lower(summary)}'),
      (summary.positions, f'at all {summary.rejected_positions} positions the loss without a call '
                          'is too low'),
      (summary.candidates, f'all {summary.samples} samples are malformed'),
      (summary.executed, f'none of {summary.candidates} candidates has a result'),
      (summary.kept[config.tau_f], f'none of {summary.scored} calls gains tau_f = {config.tau_f}'
       + (f'; the largest known gain is {summary.max_gain:.2f}'
          if summary.max_gain is not None else '')))
  reason = next((text for count, text in stages if not count), None)
  if summary.incomplete_stage:
    found.append(f'{name}: stage {summary.incomplete_stage} is not complete.')
  elif reason:
    found.append(f'{name}: no call is kept; {reason}.')
  return found


def _lower(summary: ToolSummary) -> str:
  """Returns how many texts lower values of tau_s would select."""
  some = itertools.islice(summary.texts_by_tau_s.items(), 3)
  return ''.join(f'{"," if number else "; a tau_s of"} {tau_s:g} would pass in {texts} of them'
                 for number, (tau_s, texts) in enumerate(some))


def time_table(run: RunReader, plans: Iterable[ToolPlan]) -> str:
  """Returns a table of the seconds that a preselected text took in each stage.

  Calls are executed while the model samples others: the seconds of execute are those that the run
  waited for results.
  """
  stages, seconds = ('sample', 'execute', 'filter'), run.seconds()
  lines = [['seconds a text', *stages]]
  for plan in plans:
    names = [stage_name(plan.tool.name, stage) for stage in stages]
    texts = max(run.counts(names[0])['documents'], 1)
    lines.append([plan.tool.name, *(f'{seconds.get(name, 0) / texts:.2f}' for name in names)])
  return markdown_table(lines)


def examples(summaries: Iterable[ToolSummary], texts: Mapping[str, str], tokenizer: Tokenizer,
             syntax: CallSyntax) -> str:
  """Returns the best kept and rejected calls of each tool, as in the paper's Table 10.

  Args:
    summaries: of the tools.
    texts: the texts of the calls, by document id.
    tokenizer: of the run.
    syntax: how calls are written.
  """
  sections = []
  for summary in summaries:
    if calls := [*summary.best_kept, *summary.best_rejected]:
      sections += [f'## {summary.name}, by gain', call_table(calls, texts, tokenizer, syntax)]
  return '\n\n'.join(sections)


def best_calls(summaries: Iterable[ToolSummary], texts: Mapping[str, str], tokenizer: Tokenizer,
               syntax: CallSyntax, count: int) -> str:
  """Returns the `count` best kept and rejected calls of each tool, under headings; see `examples`.
  """
  sections = []
  for summary in summaries:
    for title, calls in ('Kept', summary.best_kept), ('Rejected', summary.best_rejected):
      if calls:
        table = call_table(calls[:count], texts, tokenizer, syntax)
        sections.append(f'### {title}\n\n{table}')
  return '\n\n'.join(sections)


def call_table(calls: Iterable[ScoredCall], texts: Mapping[str, str], tokenizer: Tokenizer,
               syntax: CallSyntax) -> str:
  """Returns a table of `calls` in their texts, with the three losses of the filter.

  A loss that was not computed is shown as -, and the gain as a bound.
  """
  lines = [['call', 'loss: no call', 'no result', 'result', 'gain']]
  for call in calls:
    text = texts[call.document_id]
    at = tokenizer.characters_before(text, call.position)
    before, after = text[:at], text[at:]
    written = syntax.linearise(call.call()).lstrip()  # Markdown's bold text begins with no blank
    shown = f'{before[-_CONTEXT_CHARS:]} **{written}**{after[:_CONTEXT_CHARS]}'
    known = call.loss_call is not None
    lines.append([shown, f'{call.loss_no_call:.2f}', f'{call.loss_call:.2f}' if known else '-',
                  f'{call.loss_result:.2f}', f'{"" if known else "<= "}{call.gain:.2f}'])
  return markdown_table(lines)
