"""Annotation of word problems with the calculator: sample, execute and filter, from texts to calls.

    python benchmarks/annotation.py [--texts 40] [--k 3] [--m 5] [--temperature 0.4]

Both sides take the k likeliest positions of each text, sample m calls at each, ask the same
calculator, and compute all three losses of every call that has a result. Theirs is what a competent
user would write with transformers: `benchmarks/call_sampling.py` and `benchmarks/filter_scoring.py`
say how it samples and scores. Ours writes its run into a folder, with everything that a resumed run
needs. Both print how many calls they keep. These numbers are only similar, as samples differ.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator

import harness
import numpy as np
from call_sampling import read
from filter_scoring import sequences

import toolformer_jax as tf_jax
from toolformer_jax.annotation.filter import weighted_loss
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import Document, ExecutedCall
from toolformer_jax.errors import ToolError
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.calculator import Calculator

MAX_CALL_TOKENS = 24


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (('texts', 40), ('k', 3), ('m', 5), ('batch_rows', 32)):
    parser.add_argument(f'--{name}', type=int, default=default)
  for name, default in (('temperature', 0.4), ('tau_f', 0.5)):
    parser.add_argument(f'--{name}', type=float, default=default)
  harness.add_dtype(parser)
  def title(args):
    return f'Annotation of {args.texts} texts' + harness.in_dtype(args)
  harness.main(title, parser, {'ours': ours, 'theirs': theirs})


def ours(args: argparse.Namespace) -> harness.Run:
  """Annotates by this package."""
  model = harness.load(args)
  documents = read(args.texts)
  settings = tf_jax.AnnotationConfig(temperature=args.temperature, force_name=True,
                                     max_call_tokens=MAX_CALL_TOKENS)
  tool = tf_jax.ToolConfig(tau_s=0.0, tau_f=args.tau_f, k=args.k, m=args.m)
  def run(warm_up: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
      result = tf_jax.annotate(model, documents, tools='calculator', output_dir=folder,
                               config=settings, tool_configs={'Calculator': tool})
      kept = sum(len(text.calls) for text in result.annotated)
    print(f'ours keeps {kept} calls', file=sys.stderr)
    return {'texts': len(documents)}
  return run


def theirs(args: argparse.Namespace) -> harness.Run:
  """Annotates by transformers."""
  from transformers_inference import CallSampler, Transformers
  model = Transformers(harness.their_dtype(args.dtype))
  sampler = CallSampler(model, args.k, args.m, MAX_CALL_TOKENS, args.temperature)
  def run(warm_up: bool) -> dict[str, float]:
    documents = read(1 if warm_up else args.texts)
    calls = [call for document in documents
             for call in executed(document, sampler, model.tokenizer)]
    logprobs = model.last_logprobs(*sequences(calls, documents, model.tokenizer), args.batch_rows)
    # As `merge` does, a position keeps one call.
    kept = {(call.document_id, call.position)
            for call, gain in zip(calls, gains(calls, logprobs), strict=True) if gain >= args.tau_f}
    print(f'theirs keeps {len(kept)} calls', file=sys.stderr)
    return {'texts': len(documents)}
  return run


def executed(document: Document, sampler, tokenizer) -> Iterator[ExecutedCall]:
  """Yields the different calls that are sampled for a text and have a result."""
  ids = tokenizer.encode(document.text)
  calculator = Calculator()
  positions, cache = sampler.likeliest(ids)
  for position in sorted(positions):
    arguments = set()
    for sample in sampler.samples(ids, cache, position):
      text = f'{DEFAULT_SYNTAX.start}Calculator({tokenizer.decode(sample)}'
      arguments |= {span.call.argument.strip()
                    for span in DEFAULT_SYNTAX.find(text, {'Calculator'})[:1]}
    for argument in sorted(arguments):
      try:
        result = calculator(argument, Context())
      except ToolError:
        continue
      yield ExecutedCall(document.id, 'Calculator', argument, position, 0.0, result)


def gains(calls: list[ExecutedCall], logprobs: list[list[float]]) -> Iterator[float]:
  """Yields the gain of each call from the log-probabilities of `sequences`."""
  first = {}  # position of a call in each text; `executed` has them in ascending order
  for call in calls:
    first.setdefault(call.document_id, call.position)
  of_texts = dict(zip(first, logprobs, strict=False))
  of_calls = iter(logprobs[len(first):])
  for call in calls:
    no_call = of_texts[call.document_id][call.position - first[call.document_id]:]
    losses = [weighted_loss(np.array(some)) for some in (no_call, next(of_calls), next(of_calls))]
    yield min(losses[:2]) - losses[2]


if __name__ == '__main__':
  main()
