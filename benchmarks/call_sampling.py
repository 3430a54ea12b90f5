"""Call sampling: m calls to the calculator at each of the k likeliest positions.

    python benchmarks/call_sampling.py [--texts 20] [--k 20] [--m 10] [--temperature 0.4]

Theirs computes the prompt once, each text once after it, and samples a batch of m continuations at
each position from a cropped copy of that cache, until all of them have a closing bracket or the end
of a line. As all positions take very long, it does so at `--their_positions` of each text, and the
time of that part is multiplied; the prompts' and texts' is not. They are spread evenly over the k
likeliest positions, in the order of their probability.
"""

import argparse
import time

import harness

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.annotation.sample import CallSampler
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.records import Document


def main() -> None:
  """Reads the options and runs both sides."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (('texts', 20), ('k', 20), ('m', 10), ('their_positions', 2)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--temperature', type=float, default=0.4)
  harness.add_dtype(parser)
  def title(args):
    return f'Call sampling at temperature {args.temperature}' + harness.in_dtype(args)
  harness.main(title, parser, {'ours': ours, 'theirs': theirs})


def settings(args: argparse.Namespace) -> AnnotationConfig:
  """Returns how calls are sampled."""
  return AnnotationConfig(temperature=args.temperature, max_call_tokens=24)


def read(texts: int) -> list[Document]:
  """Returns the first word problems."""
  return [document for document, _ in zip(read_corpus('word-problems'), range(texts), strict=False)]


def ours(args: argparse.Namespace) -> harness.Run:
  """Samples by the project's engine."""
  model = harness.load(args)
  tool = ToolConfig(tau_s=0.0, k=args.k, m=args.m)
  sampler = CallSampler(model=model, prompt=CALCULATOR, tool_config=tool, config=settings(args),
                        syntax=DEFAULT_SYNTAX)
  documents = read(args.texts)
  def run(warm_up: bool) -> dict[str, float]:
    return {'samples': sampler(documents)[1]['samples']}
  return run


def theirs(args: argparse.Namespace) -> harness.Run:
  """Samples by transformers."""
  from transformers_inference import CallSampler, Transformers
  model = Transformers(harness.their_dtype(args.dtype))
  sampler = CallSampler(model, args.k, args.m, settings(args).max_call_tokens, args.temperature)
  def run(warm_up: bool) -> dict[str, float]:
    positions = 1 if warm_up else args.their_positions
    samples, reading, sampling = 0, 0.0, 0.0
    for document in read(1 if warm_up else args.texts):
      start = time.perf_counter()
      ids = model.tokenizer.encode(document.text)
      likeliest, cache = sampler.likeliest(ids)
      chosen = likeliest[len(likeliest) // (2 * positions)::len(likeliest) // positions][:positions]
      middle = time.perf_counter()
      for position in chosen:
        sampler.samples(ids, cache, position)
      reading += middle - start
      sampling += (time.perf_counter() - middle) / len(chosen) * len(likeliest)
      samples += len(likeliest) * args.m
    return {'samples': samples, 'seconds': reading + sampling}
  return run


if __name__ == '__main__':
  main()
