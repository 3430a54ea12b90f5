"""Prometheus metrics, under vLLM's names so that existing dashboards work, plus tool calls."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from toolformer_jax.tools.executor import Executor

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
# Kind, vLLM's name, documentation, and labels besides the model's name.
_FAMILIES: Sequence[tuple[Any, ...]] = (
    (Gauge, 'num_requests_running', 'Requests that have a slot.'),
    (Gauge, 'num_requests_waiting', 'Requests that wait for a slot.'),
    (Counter, 'prompt_tokens', 'Tokens of prompts.'),
    (Counter, 'generation_tokens', 'Tokens of finished texts, with calls and results.'),
    (Counter, 'prefix_cache_queries',
     'Tokens of prompts that were looked up in the prefix cache.'),
    (Counter, 'prefix_cache_hits', 'Tokens of prompts that the prefix cache had.'),
    (Counter, 'request_success', 'Requests that have ended, by the reason.', 'finished_reason'),
    (Histogram, 'request_queue_time_seconds', 'From the arrival of a request to its slot.'),
    (Histogram, 'time_to_first_token_seconds', 'From the arrival of a request to its first text.'),
    (Histogram, 'inter_token_latency_seconds',
     'Between the pieces of a text, which have a few tokens each.'),
    (Histogram, 'request_time_per_output_token_seconds',
     'From the first text of a request to its end, by token.'),
    (Histogram, 'e2e_request_latency_seconds', 'From the arrival of a request to its end.'))


class ModelMetrics:
  """The metrics of the model, or of one of its adapters.

  Attributes:
    running, waiting: requests with a slot, and in the queue.
  """

  def __init__(self, families: Mapping[str, Any], model_name: str):
    """Creates the metrics of the requests for `model_name`, all zero."""
    of = {name: family.labels(model_name) for name, family in families.items()
          if name != 'request_success'}
    self.running, self.waiting = of['num_requests_running'], of['num_requests_waiting']
    self._of, self._ended, self._name = of, families['request_success'], model_name

  def observe_slot(self, arrived: float, prompt_tokens: int) -> None:
    """Counts a request that has got a slot."""
    self._of['request_queue_time_seconds'].observe(time.perf_counter() - arrived)
    self._of['prompt_tokens'].inc(prompt_tokens)

  def observe_prefix_cache(self, queries: int, hits: int) -> None:
    """Counts tokens that were looked up in the prefix cache, and those of them that it had."""
    self._of['prefix_cache_queries'].inc(queries)
    self._of['prefix_cache_hits'].inc(hits)

  def observe_text(self, arrived: float, last: float | None, now: float) -> None:
    """Counts a piece of a text; `last` is the time of the one before it."""
    if last is None:
      self._of['time_to_first_token_seconds'].observe(now - arrived)
    else:
      self._of['inter_token_latency_seconds'].observe(now - last)

  def observe_tokens(self, first: float | None, tokens: int, now: float) -> None:
    """Counts the tokens of a finished text, whose first piece was made at the time `first`."""
    self._of['generation_tokens'].inc(tokens)
    if first is not None and tokens > 1:
      self._of['request_time_per_output_token_seconds'].observe((now - first) / (tokens - 1))

  def observe_end(self, arrived: float, reason: str) -> None:
    """Counts the end of a request: 'stop', 'length', 'abort' or 'error'."""
    self._ended.labels(self._name, reason).inc()
    self._of['e2e_request_latency_seconds'].observe(time.perf_counter() - arrived)


class Metrics:
  """The metrics of one server.

  Attributes:
    registry: holds all of them.
    by_adapter: those of requests for each adapter; for the model itself under None.
    warm_up_s: how long it took to compile all programs; 0 before.
  """

  def __init__(self, model_name: str, adapters: Sequence[str] = (),
               executor: Executor | None = None):
    """Creates the metrics, all zero; tool calls are counted by `executor`."""
    self.registry = CollectorRegistry()
    families = {
        name: kind(f'vllm:{name}', documentation, ['model_name', *labels], registry=self.registry,
                   **({'buckets': _SECONDS} if kind is Histogram else {}))
        for kind, name, documentation, *labels in _FAMILIES}
    self.by_adapter: dict[str | None, ModelMetrics] = {None: ModelMetrics(families, model_name)}
    self.by_adapter |= {name: ModelMetrics(families, name) for name in adapters}
    self.warm_up_s = Gauge('toolformer:warm_up_seconds',
                           'Time in which all programs were compiled.', registry=self.registry)
    if executor is not None:
      self.registry.register(_ToolMetrics(executor))


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
