"""Prometheus metrics, under vLLM's names so that existing dashboards work, plus tool calls."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from toolformer_jax.inference.prefix_cache import PrefixCounts
from toolformer_jax.tools.executor import Executor

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
  """The metrics of one server.

  Attributes:
    registry: holds all of them.
    running, waiting: requests with a slot, and in the queue.
    prompt_tokens, generation_tokens: counts.
    warm_up_s: how long it took to compile all programs; 0 before.
  """

  def __init__(self, model_name: str, executor: Executor | None):
    """Creates the metrics, all zero; tool calls are counted by `executor`."""
    self.registry = CollectorRegistry()
    def make(kind: Callable[..., Any], name: str, documentation: str,
             labels: Sequence[str] = (), **options: Any) -> Any:
      made = kind(f'vllm:{name}', documentation, ['model_name', *labels],
                  registry=self.registry, **options)
      return made if labels else made.labels(model_name)
    self.running = make(Gauge, 'num_requests_running', 'Requests that have a slot.')
    self.waiting = make(Gauge, 'num_requests_waiting', 'Requests that wait for a slot.')
    self.prompt_tokens = make(Counter, 'prompt_tokens', 'Tokens of prompts.')
    self.generation_tokens = make(Counter, 'generation_tokens',
                                  'Tokens of finished texts, with calls and results.')
    self._prefix_queries = make(Counter, 'prefix_cache_queries',
                                'Tokens of prompts that were looked up in the prefix cache.')
    self._prefix_hits = make(Counter, 'prefix_cache_hits',
                             'Tokens of prompts that the prefix cache had.')
    self._success = make(Counter, 'request_success', 'Requests that have ended, by the reason.',
                         ['finished_reason'])
    self._queued = make(Histogram, 'request_queue_time_seconds',
                        'From the arrival of a request to its slot.', buckets=_SECONDS)
    self._first = make(Histogram, 'time_to_first_token_seconds',
                       'From the arrival of a request to its first text.', buckets=_SECONDS)
    self._between = make(Histogram, 'inter_token_latency_seconds',
                         'Between the pieces of a text, which have a few tokens each.',
                         buckets=_SECONDS)
    self._per_token = make(Histogram, 'request_time_per_output_token_seconds',
                           'From the first text of a request to its end, by token.',
                           buckets=_SECONDS)
    self._whole = make(Histogram, 'e2e_request_latency_seconds',
                       'From the arrival of a request to its end.', buckets=_SECONDS)
    self._model_name = model_name
    self.warm_up_s = Gauge('toolformer:warm_up_seconds',
                           'Time in which all programs were compiled.', registry=self.registry)
    if executor is not None:
      self.registry.register(_ToolMetrics(executor))

  def observe_slot(self, arrived: float) -> None:
    """Counts that a request has got a slot."""
    self._queued.observe(time.perf_counter() - arrived)

  def observe_text(self, arrived: float, last: float | None, now: float) -> None:
    """Counts a piece of a text; `last` is the time of the one before it."""
    if last is None:
      self._first.observe(now - arrived)
    else:
      self._between.observe(now - last)

  def observe_prefix_cache(self, counts: PrefixCounts) -> None:
    """Counts what prompts were looked up in the prefix cache."""
    self._prefix_queries.inc(counts.queries)
    self._prefix_hits.inc(counts.hits)

  def observe_tokens(self, first: float | None, tokens: int, now: float) -> None:
    """Counts the tokens of a finished text, whose first piece was made at the time `first`."""
    self.generation_tokens.inc(tokens)
    if first is not None and tokens > 1:
      self._per_token.observe((now - first) / (tokens - 1))

  def observe_end(self, arrived: float, reason: str) -> None:
    """Counts the end of a request: 'stop', 'length', 'abort' or 'error'."""
    self._success.labels(self._model_name, reason).inc()
    self._whole.observe(time.perf_counter() - arrived)


class _ToolMetrics:
  """Reads the counts of an executor."""

  def __init__(self, executor: Executor):
    self._executor = executor

  def collect(self) -> Iterator[Metric]:
    """Yields calls, failures and seconds of each tool."""
    calls = CounterMetricFamily('toolformer:tool_calls', 'Calls.', labels=['tool'])
    seconds = CounterMetricFamily('toolformer:tool_seconds', 'Seconds of calls.', labels=['tool'])
    failures = CounterMetricFamily('toolformer:tool_failures', 'Calls without a result.',
                                   labels=['tool'])
    for name, counts in self._executor.counts.items():
      calls.add_metric([name], counts.calls)
      seconds.add_metric([name], counts.seconds)
      failures.add_metric([name], sum(list(counts.failures.values())))
    yield from (calls, failures, seconds)
