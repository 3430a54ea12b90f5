"""A plan as text for a person."""

from collections.abc import Iterable

from toolformer_jax.planning.plan import Fit, Plan
from toolformer_jax.planning.slices import GIB
from toolformer_jax.runtime.progress import duration

DISCLAIMER = ("This is the TPU compiler's plan, made without a TPU, and not a measurement: memory "
              'is what the program will take, and times are lower bounds.')
_MEANS = {'train': 'rows of {length} tokens, forward, backward and update',
          'score': 'rows of {length} tokens',
          'prefill': 'documents of {length} tokens, 8 of them at a time',
          'decode': 'texts in a cache of {length} tokens, 4 tokens of each'}


def report(plan: Plan) -> str:
  """Returns a table of a plan, and a note that it is not a measurement."""
  asked = plan.request
  means = _MEANS[asked.step].format(length=asked.length)
  mesh = ', '.join(f'{axis} {size}' for axis, size in
                   zip(('data', 'fsdp', 'tensor'), asked.mesh, strict=True))
  rows = [('step', f'{asked.step}: {asked.batch} {means}'),
          ('model', f'{asked.model}, {asked.config.dtype}'),
          ('chips', f'{asked.slice.chips} of {asked.slice.kind} ({asked.slice.shape}); {mesh}'),
          ('fits', 'yes' if plan.fits else f'no: {plan.reason}'),
          *(_inside(plan, plan.fit) if plan.fit
            else [('arguments', _gib(plan.arguments) + ' a chip')]),
          ('compiled in', duration(plan.compile_s))]
  width = max(len(name) for name, _ in rows)
  return '\n'.join([*(f'{name:{width}}  {value}'.rstrip() for name, value in rows), '', DISCLAIMER])


def _inside(plan: Plan, fit: Fit) -> Iterable[tuple[str, str]]:
  """Yields the rows of a program that fits."""
  sent, bound = fit.collectives, fit.bound
  usable = plan.request.slice.usable_memory
  yield 'memory', (f'{_gib(plan.arguments)} arguments + {_gib(fit.temporaries)} temporaries '
                   f'of {_gib(usable)} a chip')
  yield 'headroom', _gib(fit.headroom)
  yield 'attention', "the TPU's kernel" if fit.kernel else 'by XLA'
  for kind, count in sorted(sent.counts.items()):
    yield kind, f'{count:,} a run, {_gib(sent.bytes[kind])} on each chip'
  if sent.unknown_loops:
    yield 'loops', f'{sent.unknown_loops} of unknown length, whose collectives count once'
  yield 'arithmetic', f'{_ms(bound.compute_s)} at least ({plan.useful_flops:.3g} useful operations)'
  yield 'memory traffic', f'{_ms(bound.memory_s)} at least'
  yield 'links', f'{_ms(bound.links_s)} at least'
  yield 'speed', (f'{bound.tokens_per_s:,.0f} tokens a second at most: {bound.utilization:.1%} of '
                  'the peak (MFU)')


def _gib(size: float) -> str:
  return f'{size / GIB:.2f} GiB'


def _ms(seconds: float) -> str:
  return f'{seconds * 1000:,.1f} ms'
