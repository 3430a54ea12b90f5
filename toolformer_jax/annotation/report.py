"""What came of an annotation run: tables in Markdown, made from its output folder alone."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from toolformer_jax.annotation import run_dir as folders
from toolformer_jax.annotation.config import THRESHOLDS, AnnotationConfig
from toolformer_jax.annotation.run_dir import RunReader, stage_name
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.data.records import Candidate, Document, ScoredCall
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.tokenizer import Tokenizer

_CONTEXT_CHARS = 60


@dataclass(frozen=True)
class ToolRow:
  """How many texts and calls of one tool came through each stage.

  Attributes:
    plan: the tool and its thresholds.
    texts, preselected: texts of the corpus, and those that a call was looked for in.
    positions, samples: places in them, and calls sampled there.
    candidates: different calls, well-formed.
    executed, scored: calls that have a result, and losses.
    kept: places that keep a call, by threshold; that of the plan is among them.
    texts_kept: texts that keep one, before the cap: the examples of the paper's Table 2.
    best: no gain is higher; None if nothing was scored.
    failures: reasons for having no result.
    missing: the first stage that is not complete, None after a whole run.
  """

  plan: ToolPlan
  texts: int
  preselected: int
  positions: int
  samples: int
  candidates: int
  executed: int
  scored: int
  kept: dict[float, int]
  texts_kept: dict[float, int]
  best: float | None
  failures: Counter[str]
  missing: str | None


def summary(folder: RunReader, plans: Sequence[ToolPlan], settings: AnnotationConfig) -> str:
  """Returns what came of a run: its corpus, a table with a row for each tool, and notes."""
  rows = tool_rows(folder, plans)
  paragraphs = [corpus_line(folder, settings.max_text_tokens), tool_table(rows),
                *(note for row in rows for note in notes(row))]
  return '\n\n'.join(paragraphs)


def examples(folder: RunReader, plans: Iterable[ToolPlan], tokenizer: Tokenizer,
             syntax: CallSyntax, count: int = 10) -> str:
  """Returns the calls that help most and those that just fail to, as in the paper's Table 10."""
  paragraphs = []
  for plan in plans:
    kept, rejected = best_calls(folder, plan, count)
    if kept or rejected:
      paragraphs += [f'## {plan.tool.name}, by gain',
                     call_table(folder, [*kept, *rejected], tokenizer, syntax)]
  return '\n\n'.join(paragraphs)


def best_calls_sections(folder: RunReader, plans: Iterable[ToolPlan], tokenizer: Tokenizer,
                        syntax: CallSyntax, count: int) -> str:
  """Returns the `count` best calls of each tool that are kept, and as many that are rejected."""
  sections = []
  for plan in plans:
    for title, some in zip(('Kept', 'Rejected'), best_calls(folder, plan, count), strict=True):
      if some:
        sections.append(f'### {title}\n\n{call_table(folder, some, tokenizer, syntax)}')
  return '\n\n'.join(sections)


def tool_rows(folder: RunReader, plans: Iterable[ToolPlan]) -> list[ToolRow]:
  """Returns a row for each of `plans`; stages that were not run yet count as zero."""
  texts = folder.counts(folders.DOCUMENTS)['documents']
  return [_tool_row(folder, plan, texts) for plan in plans]


def _tool_row(folder: RunReader, plan: ToolPlan, texts: int) -> ToolRow:
  tool = plan.tool.name
  stages = {stage: stage_name(tool, stage) for stage in ('sample', 'execute', 'filter')}
  sampled, executed = (folder.counts(stages[stage]) for stage in ('sample', 'execute'))
  scored = list(folder.read_all(stages['filter'], ScoredCall))
  thresholds = sorted({*THRESHOLDS, plan.config.tau_f})
  return ToolRow(
      plan=plan, texts=texts, preselected=sampled['documents'], positions=sampled['positions'],
      samples=sampled['samples'],
      candidates=sum(1 for _ in folder.read_all(stages['sample'], Candidate)),
      executed=executed['executed'], scored=len(scored),
      kept={t: len({(c.document_id, c.position) for c in scored if c.gain >= t})
            for t in thresholds},
      texts_kept={t: len({c.document_id for c in scored if c.gain >= t}) for t in thresholds},
      best=max((call.gain for call in scored), default=None), failures=_failures(tool, executed),
      missing=next((s for s, name in stages.items() if not folder.is_complete(name)), None))


def _failures(tool: str, counts: Counter[str]) -> Counter[str]:
  """Returns how often which kind of failure was counted: the reason without its details."""
  kinds = Counter()
  for name, count in counts.items():
    if name.startswith('failed: '):
      reason = name.removeprefix('failed: ').removeprefix(f'{tool}: ')
      kinds[reason.partition(':')[0]] += count
  return kinds


def tool_table(rows: Sequence[ToolRow]) -> str:
  """Returns `rows` as a Markdown table: calls that are kept, and texts by threshold."""
  lines = [['tool', 'texts', 'preselected', 'positions', 'samples', 'candidates', 'executed',
            'scored', 'tau_f', 'kept', *(f'texts >= {t}' for t in THRESHOLDS)]]
  for row in rows:
    tau_f = row.plan.config.tau_f
    lines.append([row.plan.tool.name, row.texts, row.preselected, row.positions, row.samples,
                  row.candidates, row.executed, row.scored, tau_f, row.kept[tau_f],
                  *(row.texts_kept[t] for t in THRESHOLDS)])
  return markdown_table(lines)


def time_table(folder: RunReader, plans: Iterable[ToolPlan]) -> str:
  """Returns by stage how many seconds a preselected text took, as a Markdown table.

  Tools work while the device samples the next texts: execute is the time that was waited for them.
  """
  stages, seconds = ('sample', 'execute', 'filter'), folder.seconds()
  lines = [['seconds a text', *stages]]
  for plan in plans:
    names = [stage_name(plan.tool.name, stage) for stage in stages]
    texts = max(folder.counts(names[0])['documents'], 1)
    lines.append([plan.tool.name, *(f'{seconds.get(name, 0) / texts:.2f}' for name in names)])
  return markdown_table(lines)


def notes(row: ToolRow) -> list[str]:
  """Returns sentences on where the calls of a tool were lost, and why if all of them were."""
  tool, settings = row.plan.tool.name, row.plan.config
  found = []
  if row.failures:
    reasons = ', '.join(f'{n} x {reason}' for reason, n in row.failures.most_common(5))
    found.append(f'{tool}: {row.failures.total()} of {row.candidates} candidates have no result: '
                 f'{reasons}.')
  stages = (
      (row.texts, 'the corpus has no text'),
      (row.preselected, f'sampling looked at none of {row.texts} texts: they do not pass the '
                        'heuristics of preselection'),
      (row.positions, f'sampling found no position: nowhere in {row.preselected} texts does a call '
                      f'start with a probability above tau_s = {settings.tau_s}'),
      (row.candidates, f'sampling kept nothing: all {row.samples} samples are malformed'),
      (row.executed, f'execution dropped all {row.candidates} candidates'),
      (row.kept[settings.tau_f], f'the filter dropped all {row.scored} calls: no gain is above '
                                 f'{row.best or 0:.2f}, and tau_f = {settings.tau_f}'))
  reason = next((text for count, text in stages if not count), None)
  if row.missing:
    found.append(f'{tool}: stage {row.missing} is not complete.')
  elif reason:
    found.append(f'{tool}: nothing is kept; {reason}.')
  return found


def corpus_line(folder: RunReader, max_text_tokens: int) -> str:
  """Returns a sentence on the documents that were read."""
  counts = folder.counts(folders.DOCUMENTS)
  left_out = ''.join(f'; {counts[reason]} texts {reason} were left out'
                     for reason in ('with a call already', 'with unknown characters')
                     if counts[reason])
  return (f'{counts["read"]} documents were read; {counts["split"]} of them are longer than '
          f'{max_text_tokens} tokens and were split'
          f'{left_out}. '
          f'That makes {counts["documents"]} texts.')


def best_calls(folder: RunReader, plan: ToolPlan,
               count: int) -> tuple[list[ScoredCall], list[ScoredCall]]:
  """Returns the `count` best calls that are kept, and as many that just fail to be.

  Best first, those with all three losses before the others, and no two of a list in one text.
  """
  best: dict[tuple[str, int], ScoredCall] = {}
  for call in folder.read_all(stage_name(plan.tool.name, 'filter'), ScoredCall):
    place = call.document_id, call.position
    best[place] = min(best.get(place, call), call, key=_rank)
  ranked = sorted(best.values(), key=_rank)
  kept, rejected = {}, {}
  for call in ranked:
    chosen = kept if call.gain >= plan.config.tau_f else rejected
    chosen.setdefault(call.document_id, call)
  return list(kept.values())[:count], list(rejected.values())[:count]


def _rank(call: ScoredCall) -> tuple[bool, float]:
  """Sorts calls by gain, those first whose gain is known."""
  return call.loss_call is None, -call.gain


def call_table(folder: RunReader, calls: Sequence[ScoredCall], tokenizer: Tokenizer,
               syntax: CallSyntax = DEFAULT_SYNTAX) -> str:
  """Returns `calls` in their texts as a Markdown table, with the three losses of the filter.

  A loss that was not needed is shown as -.
  """
  wanted = {call.document_id for call in calls}
  texts = {document.id: document.text
           for document in folder.read_all(folders.DOCUMENTS, Document) if document.id in wanted}
  lines = [['call', 'loss: no call', 'no result', 'result', 'gain']]
  for call in calls:
    text = texts[call.document_id]
    place = tokenizer.characters_before(text, call.position)
    before, after = text[:place], text[place:]
    spelled = syntax.linearise(call.call()).lstrip()  # bold begins with no blank
    shown = f'{before[-_CONTEXT_CHARS:]} **{spelled}**{after[:_CONTEXT_CHARS]}'
    known = call.loss_call is not None
    lines.append([shown, f'{call.loss_no_call:.2f}', f'{call.loss_call:.2f}' if known else '-',
                  f'{call.loss_result:.2f}', f'{"" if known else "<= "}{call.gain:.2f}'])
  return markdown_table(lines)
