"""Many requests at once to our server: tools that hang, fail or flood, and clients that leave.

    python benchmarks/serving_load.py [--model tiny] [--requests 1000] [--slots 16] [--rounds 4]

A third of the requests have tools in trouble, and a third of the clients go away half-way. All come
at the same time, over loopback, each client its one request; those that find no place in the queue
try again. The text of every client that stays is compared with the one that its request has alone.
The command fails if one is lost or another, if a slot or the queue is not empty after a round, or
if a program is compiled after the warm-up.

The model `tiny` is made on the spot and learns to call the tool: it keeps the server busiest.
`smollm2-135m` copies calls from its prompts: it shows what a client waits for.
"""

import argparse
import dataclasses
import gc
import os
import pathlib
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import harness
import http_load
import jax
import loopback
import numpy as np

from toolformer_jax import sharding
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.data import catalogue
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.engine import Engine
from toolformer_jax.inference.events import RequestFinished
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.serving.app import AppState
from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.executor import Executor, ExecutorConfig
from toolformer_jax.training.config import FinetuneConfig
from toolformer_jax.training.finetune import finetune_examples
from toolformer_jax.training.packing import Example

# The date of a request says what becomes of its call.
GOOD, HANG, FAIL, FLOOD = '2001-01-01', '2002-02-02', '2003-03-03', '2004-04-04'
ANSWERS = {'ab': 'XY', 'cd': 'ZW'}
EXECUTOR = ExecutorConfig(time_limit_s=0.5)
# Follow one another in a prompt, so that a model that was taught no tool calls it.
_EXAMPLES = ''.join(f'The word for {word} is [Up({word}) -> {answer}] {answer}.\n'
                    for word, answer in (('ef', 'UV'), ('ab', 'XY'), ('gh', 'ST')))
_MAX_MODEL_LEN = 240  # a tool that floods leaves no room in it
_IDLE_S = 30.0  # within which slots and queue are empty after a round


class Up:
  """Answers, hangs, fails or floods."""

  name, version = 'Up', '1'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the answer for an argument."""
    if context.date == HANG:
      threading.Event().wait(3 * EXECUTOR.time_limit_s)
      return 'late'
    if context.date == FAIL:
      raise ToolError('broken')
    return 'y' * 10**6 if context.date == FLOOD else ANSWERS.get(argument, 'QR')


@dataclasses.dataclass(frozen=True)
class Ask:
  """A request, and after how many pieces its client leaves; None if it stays."""

  prompt: str
  date: str
  stream: bool
  leave_after: int | None
  params: GenerationConfig

  def fields(self) -> dict[str, Any]:
    """Returns the fields of the request."""
    usage = {'stream_options': {'include_usage': True}} if self.stream else {}
    return {'model': 'model', 'prompt': self.prompt, 'date': self.date, 'stream': self.stream,
            'max_tokens': self.params.max_tokens, 'temperature': self.params.temperature,
            'seed': self.params.seed, **usage}


class Round(NamedTuple):
  """What was seen in a round.

  Attributes:
    seconds: of all requests.
    answers: see `http_load.send`.
    wrong: what is wrong, a line for each text that is lost or not the one of its request.
    memory: GiB of this process after the round.
    arrays: the number of JAX's arrays after it.
  """

  seconds: float
  answers: list[dict[str, Any]]
  wrong: list[str]
  memory: float
  arrays: int


def main() -> None:
  """Reads the options and prints Markdown."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--model', choices=('tiny', 'smollm2-135m'), default='tiny')
  for name, default in (('requests', 1000), ('slots', 16), ('rounds', 4)):
    parser.add_argument(f'--{name}', type=int, default=default)
  parser.add_argument('--record', action='store_true',
                      help=f'put the table into {harness.RESULTS.name}')
  args = parser.parse_args()
  if args.model == 'tiny':
    with tempfile.TemporaryDirectory() as folder:
      model = tiny_model(pathlib.Path(folder))
    requests = list(asks(args.requests, ('ab is', 'cd is'), letters, temperatures=(0.0, 0.9)))
  else:
    model = load_model(args.model).for_inference()
    words = [f'{_EXAMPLES}The word for {word} is' for word in ('ab', 'cd', 'ij', 'kl')]
    requests = list(asks(args.requests, words, lambda rng: f'{rng.randrange(20)} apples and',
                         temperatures=(0.0,)))
  calls = sum(ask.date != GOOD for ask in requests)
  print(f'{calls} requests with tools in trouble, '
        f'{sum(ask.leave_after is not None for ask in requests)} clients leave')
  seen = list(measure(model, requests, slots=args.slots, rounds=args.rounds))
  title = f'{args.requests:,} requests at once, {args.slots} slots, {args.model}'
  section = harness.section(title, f'{args.rounds} rounds', _table(requests, seen))
  print(section)
  if wrong := [line for one in seen for line in one.wrong]:
    raise SystemExit('\n'.join(wrong))
  if args.record:
    harness.record(section)


def asks(count: int, calling: Sequence[str], other: Callable[[random.Random], str], *,
         temperatures: Sequence[float]) -> Iterator[Ask]:
  """Yields requests: a third have tools in trouble, a third of the clients leave half-way.

  Args:
    count: how many.
    calling: prompts after which the model calls the tool.
    other: makes another prompt from a generator of random numbers.
    temperatures: of requests whose tool is not in trouble.
  """
  rng = random.Random(11)
  for number in range(count):
    trouble = number % 3 == 0
    leave_after = rng.choice([0, 1, 2]) if number % 3 == 1 else None
    prompt = rng.choice(calling) if trouble or rng.random() < 0.3 else other(rng)
    temperature = 0.0 if trouble else rng.choice(temperatures)
    yield Ask(prompt, rng.choice([HANG, FAIL, FLOOD]) if trouble else GOOD,
              leave_after is not None or rng.random() < 0.5, leave_after,
              GenerationConfig(max_tokens=rng.choice([6, 20]), top_k_api=1, temperature=temperature,
                               seed=number if temperature else 0))


def letters(rng: random.Random) -> str:
  """Returns a prompt of letters, after which no call is likely."""
  return ''.join(rng.choice('abcdefgh ') for _ in range(rng.randrange(1, 60)))


def measure(model: LanguageModel, requests: Sequence[Ask], *, slots: int, rounds: int
            ) -> Iterator[Round]:
  """Sends all requests at once, several times, and yields what was seen in each round.

  Raises:
    SystemExit: the server has compiled a program after its warm-up, or is still busy after a round.
  """
  texts = texts_alone(model, requests)
  with loopback.serve(
      model, [Up()], name='model', executor_config=EXECUTOR,
      generation=GenerationConfig(top_k_api=1),
      engine_config=EngineConfig(slots, max_model_len=_MAX_MODEL_LEN),
      limits=ServingConfig(max_waiting=len(requests) // 2)) as (port, app_state):
    for _ in range(rounds):
      with CompileCounter() as counter:
        seconds, answers = http_load.send(
            port, [ask.fields() for ask in requests], clients=len(requests),
            leave_after=[ask.leave_after for ask in requests])
        _wait_until_idle(app_state)
      if counter.programs:
        raise SystemExit(f'{counter.programs} programs were compiled after the warm-up')
      yield Round(seconds, answers, list(_wrong(requests, answers, texts)), *_memory())


def texts_alone(model: LanguageModel, requests: Sequence[Ask]) -> dict[Ask, str]:
  """Returns the text that each request whose client stays has without company."""
  texts = {}
  with Executor([Up()], EXECUTOR) as executor:
    engine = Engine(model, EngineConfig(1, max_model_len=_MAX_MODEL_LEN, few_shapes=True), executor)
    for ask in requests:
      key = dataclasses.replace(ask, stream=False)
      if ask.leave_after is None and key not in texts:
        # A tool that hangs leaves the same text as one that fails, later.
        date = FAIL if ask.date == HANG else ask.date
        engine.add_request(model.tokenizer.encode(ask.prompt), ask.params, Context(date=date))
        texts[key] = _last_text(engine)
  return texts


def _last_text(engine: Engine) -> str:
  while engine.has_unfinished_requests():
    for event in engine.step():
      if isinstance(event, RequestFinished):
        text = event.output.text
  return text


def _wrong(requests: Sequence[Ask], answers: Sequence[dict[str, Any]], texts: dict[Ask, str]
           ) -> Iterator[str]:
  for number, (ask, answer) in enumerate(zip(requests, answers, strict=True)):
    if answer['error']:
      yield f'request {number} is lost: {answer["error"]}'
    elif ask.leave_after is None:
      expected = texts[dataclasses.replace(ask, stream=False)]
      if answer['text'] != expected:
        yield f'request {number}: {answer["text"][:100]!r}, and alone {expected[:100]!r}'


def _wait_until_idle(app_state: AppState) -> None:
  end = time.monotonic() + _IDLE_S
  while app_state.thread.num_unfinished:
    if time.monotonic() > end:
      raise SystemExit('the server is still busy after all requests')
    time.sleep(0.01)


def _memory() -> tuple[float, int]:
  """Returns the GiB that this process holds, and the number of arrays of JAX."""
  gc.collect()
  with open('/proc/self/statm', encoding='ascii') as file:
    pages = int(file.read().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**30, len(jax.live_arrays())


def _table(requests: Sequence[Ask], seen: Sequence[Round]) -> str:
  times = list(http_load.percentiles(seen[0].answers))
  compared = sum(ask.leave_after is None for ask in requests)
  header = ['round', 'seconds', 'texts compared', 'lost or wrong', 'memory (GiB)', 'arrays', *times]
  lines = [header, ['---'] * len(header)]
  for number, one in enumerate(seen, 1):
    values = http_load.percentiles(one.answers)
    lines.append([str(number), f'{one.seconds:.1f}', str(compared), str(len(one.wrong)),
                  f'{one.memory:.3f}', str(one.arrays), *(f'{values[name]:.3f}' for name in times)])
  return harness.table(lines)


def tiny_model(folder: pathlib.Path) -> LanguageModel:
  """Returns a model that writes ` [Up(ab) -> XY] XY.` after `ab is`, and for one more word.

  Args:
    folder: for its training.
  """
  tokenizer = GgufFile(catalogue.fetch('smollm2-135m')).tokenizer()
  decoder_config = DecoderConfig(
      vocab_size=tokenizer.vocab_size, layers=2, embed_dim=64, heads=4, kv_heads=2, head_dim=16,
      mlp_dim=128, max_positions=512, rotary_dim=16)
  boxed = Decoder(decoder_config).init(jax.random.key(0), np.zeros((1, 2), np.int32))
  model = LanguageModel.from_variables(decoder_config, sharding.unbox(boxed), tokenizer,
                                       sharding.make_mesh(devices=jax.devices()[:1]))
  encode = tokenizer.encode
  texts = [[*encode(f'{word} is'), *encode(f' [Up({word}) ->'), *encode(f' {answer}]'),
            *encode(f' {answer}.')] for word, answer in ANSWERS.items()]
  config = FinetuneConfig(steps=150, batch_rows=1, row_tokens=64, learning_rate=1e-2,
                          save_every=150)
  taught = finetune_examples(
      model=model, examples=[Example(ids, [1.0] * len(ids)) for ids in texts], config=config,
      output_dir=folder, depends_on={})
  return taught.for_inference()


if __name__ == '__main__':
  main()
