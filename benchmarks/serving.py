"""The server under clients that stream, beside `generate`, llama.cpp's server and OpenVINO GenAI.

    python benchmarks/serving.py [--clients 32] [--prompts 96] [--sides served generate ...]

All continue the same word problems greedily until the model ends a text or it has 48 tokens, as
many at the same time as there are clients. `served` and `llama_server` get requests over loopback,
each client its next one as soon as its text is complete; `generate` and `openvino` get all prompts
in a list. `served` and `generate` decode in --dtype and have a calculator, which this model does
not call; the others read the same file and choose the types of their arithmetic.

The peers are optional: pip install xllamacpp openvino-genai
"""

import argparse
import contextlib
import importlib
import os
import urllib.parse
from types import ModuleType
from typing import Any

import generation
import harness
import http_load
import loopback
import numpy as np

from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.data import catalogue
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.tools.calculator import Calculator
from toolformer_jax.tools.executor import Executor

_MODEL = 'smollm2-135m'
_MAX_MODEL_LEN = 256
_WARM_UP = 4  # prompts


def main() -> None:
  """Reads the options and runs the sides in turn."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name, default in (('prompts', 96), ('clients', 32), ('max_tokens', 48)):
    parser.add_argument(f'--{name}', type=int, default=default)
  harness.add_dtype(parser)
  sides = {'served': served, 'generate': generated, 'llama_server': llama_server,
           'openvino': openvino}
  parser.add_argument('--sides', nargs='+', choices=sides, default=list(sides))
  chosen = parser.parse_known_args()[0].sides
  def title(args: argparse.Namespace) -> str:
    return f'Serving {args.clients} clients that stream{harness.in_dtype(args)}'
  harness.main(title, parser, {side: sides[side] for side in sides if side in chosen},
               pairs=[('served', side) for side in chosen if side != 'served'])


def served(args: argparse.Namespace) -> harness.Run:
  """Streams from our server."""
  prompts = _prompts(args)
  server = contextlib.ExitStack()  # it ends with the process
  model = harness.load(args, _MODEL)
  port, _ = server.enter_context(loopback.serve(
      model, [Calculator()], name=_MODEL, generation=GenerationConfig(max_tokens=args.max_tokens),
      engine_config=EngineConfig(args.clients, max_model_len=_MAX_MODEL_LEN)))
  def run(warm_up: bool) -> dict[str, float]:
    with CompileCounter() as counter:
      measured = http_load.measure(port, prompts[:_WARM_UP] if warm_up else prompts,
                                   clients=args.clients, model=_MODEL, max_tokens=args.max_tokens)
    if counter.programs:
      raise SystemExit(f'{counter.programs} programs were compiled while requests waited')
    if not warm_up:
      server.close()
    return measured
  return run


def generated(args: argparse.Namespace) -> harness.Run:
  """Generates by `generate`."""
  model = harness.load(args, _MODEL)
  prompts = generation.read(model.tokenizer, args.prompts)
  config = GenerationConfig(max_tokens=args.max_tokens)
  engine_config = EngineConfig(args.clients, max_model_len=_MAX_MODEL_LEN)
  def run(warm_up: bool) -> dict[str, float]:
    with Executor([Calculator()], syntax=DEFAULT_SYNTAX) as executor:
      texts = generate(model, prompts, config=config, engine_config=engine_config,
                       executor=executor)
    return {'tokens': sum(len(text.token_ids) for text in texts)}
  return run


def llama_server(args: argparse.Namespace) -> harness.Run:
  """Streams from the server of llama.cpp, in this process."""
  prompts = _prompts(args)
  server = llama_cpp(catalogue.fetch(_MODEL), args.clients, _MAX_MODEL_LEN)
  def run(warm_up: bool) -> dict[str, float]:
    port = urllib.parse.urlsplit(server.listening_address).port
    return http_load.measure(port, prompts[:_WARM_UP] if warm_up else prompts,
                             clients=args.clients, model=_MODEL, max_tokens=args.max_tokens,
                             temperature=0.0)
  return run


def openvino(args: argparse.Namespace) -> harness.Run:
  """Generates by the continuous batching of OpenVINO GenAI, without a server."""
  prompts, genai = _prompts(args), optional('openvino_genai')
  scheduler = genai.SchedulerConfig()
  scheduler.max_num_seqs, scheduler.cache_size = args.clients, 2
  pipeline = genai.ContinuousBatchingPipeline(str(catalogue.fetch(_MODEL)), scheduler, 'CPU')
  config = genai.GenerationConfig(max_new_tokens=args.max_tokens, do_sample=False)
  tensors = [genai.openvino.Tensor(np.array([prompt], np.int64)) for prompt in prompts]
  def run(warm_up: bool) -> dict[str, float]:
    some = tensors[:_WARM_UP] if warm_up else tensors
    texts = pipeline.generate(some, [config] * len(some))
    return {'tokens': sum(len(text.m_generation_ids[0]) for text in texts)}
  return run


def _prompts(args: argparse.Namespace) -> list[list[int]]:
  """Returns the prompts, with the start token if the model has one."""
  tokenizer = GgufFile(catalogue.fetch(_MODEL)).tokenizer()
  start = [] if tokenizer.start_id is None else [tokenizer.start_id]
  return [start + prompt for prompt in generation.read(tokenizer, args.prompts)]


def llama_cpp(path: os.PathLike[str], rows: int, row_tokens: int) -> Any:
  """Returns a server of llama.cpp in this process, on all cores, at a free port."""
  xllamacpp = optional('xllamacpp')
  params = xllamacpp.CommonParams()
  params.model.path, params.port = os.fspath(path), 0
  params.n_parallel, params.n_ctx = rows, rows * row_tokens
  for threads in (params.cpuparams, params.cpuparams_batch):
    threads.n_threads = len(os.sched_getaffinity(0))
  return xllamacpp.Server(params)


def optional(name: str) -> ModuleType | Any:
  try:
    return importlib.import_module(name)
  except ImportError:
    raise SystemExit(f'the side needs the package {name}; leave it out by --sides') from None


if __name__ == '__main__':
  main()
