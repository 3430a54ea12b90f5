"""What a traced program consists of."""

import jax


def equations(jaxpr):
  """Yields the equations of a program and of all programs in it."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
      if _is_jaxpr(inner):
        yield from equations(getattr(inner, 'jaxpr', inner))


def _is_jaxpr(value):
  return hasattr(value, 'eqns') or hasattr(value, 'jaxpr')
