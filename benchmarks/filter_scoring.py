"""Filter scoring: the three losses of candidate calls from an annotation run.

    python benchmarks/filter_scoring.py --run D [--candidates 500] [--distinct]

Theirs scores the text without a call once a document, and each call without and with its result;
sequences end with their last scored token. Ours groups, packs and scores the same candidates. With
--distinct each call is in once a document: then there is nothing to group. `ours_skipping` leaves
out the losses that cannot decide whether a call is kept (AnnotationConfig.early_reject). The
share of the matmul peak counts what a side has to compute, equal sequences once for ours.
"""

import argparse
import math
import pathlib
from collections import defaultdict

import harness

from toolformer_jax.annotation.config import THRESHOLDS
from toolformer_jax.annotation.filter import WEIGHTS, score_calls
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import Document, ExecutedCall
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.flops import forward_flops
from toolformer_jax.tokenizer import Tokenizer

_WARM_UP = 100


def main() -> None:
  """Reads the options and runs all sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--run', type=pathlib.Path, required=True,
                      help='an output folder of annotate whose stage execute is done')
  parser.add_argument('--tool', default='Calculator')
  parser.add_argument('--candidates', type=int, default=500)
  parser.add_argument('--distinct', action='store_true', help='no call twice in a document')
  parser.add_argument('--batch_rows', type=int, default=32, help='of theirs')
  harness.add_dtype(parser)
  def title(args):
    dtype = harness.in_dtype(args) or ', float32'
    return f'Filter scoring{dtype}' + (', no equal calls' if args.distinct else '')
  harness.main(title, parser, {'ours': ours, 'ours_skipping': ours_skipping, 'theirs': theirs})


def read(args: argparse.Namespace) -> tuple[list[ExecutedCall], list[Document]]:
  """Returns the first candidates of the run that have a result, and the texts."""
  run = RunReader(args.run)
  calls = [call for call in run.calls(args.tool, 'execute') if call.failure is None]
  if args.distinct:
    calls = list({(c.document_id, c.argument): c for c in calls}.values())
  return calls[:args.candidates], list(run.documents())


def sequences(calls: list[ExecutedCall], documents: list[Document], tokenizer: Tokenizer
              ) -> tuple[list[list[int]], list[int]]:
  """Returns what has to be computed, and how many tokens at the end of each are scored."""
  texts = {d.id: tokenizer.encode(d.text) for d in documents}
  positions = defaultdict(list)
  for call in calls:
    positions[call.document_id].append(call.position)
  found, kept = [], []
  for i, at in positions.items():
    text = texts[i][:max(at) + len(WEIGHTS)]
    found.append([tokenizer.start_id, *text])
    kept.append(len(text) - min(at))
  for call in calls:
    text = texts[call.document_id][:call.position + len(WEIGHTS)]
    for result in ('', call.result):
      found.append([tokenizer.start_id, *tokenizer.encode(DEFAULT_SYNTAX.opening(call.call())),
                    *tokenizer.encode(DEFAULT_SYNTAX.closing(result)), *text])
      kept.append(len(text) - call.position)
  return found, kept


def flops(config: DecoderConfig, found: list[list[int]], kept: list[int], grouped: bool) -> int:
  """Returns the operations that `sequences` need; `grouped`: no beginnings of other ones."""
  # The last token of a sequence is only predicted.
  work = sorted((tokens[:-1], logits) for tokens, logits in zip(found, kept, strict=True))
  if grouped:
    after = [tokens for tokens, _ in work[1:]] + [[]]
    work = [(tokens, logits) for (tokens, logits), following in zip(work, after, strict=True)
            if following[:len(tokens)] != tokens]
  return sum(forward_flops(config, len(tokens), logits=logits) for tokens, logits in work)


def ours(args: argparse.Namespace, min_gain: float = -math.inf) -> harness.Run:
  """Scores by the project's engine."""
  model = harness.load(args)
  calls, documents = read(args)
  work = {'candidates': len(calls)}
  if min_gain == -math.inf:
    needed = sequences(calls, documents, model.tokenizer)
    work['flops'] = flops(model.config, *needed, grouped=True)
  def run(warm_up: bool) -> dict[str, float]:
    score_calls(calls[:_WARM_UP] if warm_up else calls, documents, model=model,
                syntax=DEFAULT_SYNTAX, min_gain=min_gain)
    return work
  return run


def ours_skipping(args: argparse.Namespace) -> harness.Run:
  """Scores by the project's engine what may decide."""
  return ours(args, min_gain=min(THRESHOLDS))


def theirs(args: argparse.Namespace) -> harness.Run:
  """Scores by transformers."""
  from transformers_inference import Transformers
  model = Transformers(harness.their_dtype(args.dtype))
  calls, documents = read(args)
  needed = sequences(calls, documents, model.tokenizer)
  work = {'candidates': len(calls), 'flops': flops(model.config, *needed, grouped=False)}
  def run(warm_up: bool) -> dict[str, float]:
    chosen = calls[:16] if warm_up else calls
    model.last_logprobs(*sequences(chosen, documents, model.tokenizer), args.batch_rows)
    return work
  return run


if __name__ == '__main__':
  main()
