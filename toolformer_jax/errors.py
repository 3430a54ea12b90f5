"""The one exception that is meant for people."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """Input, configuration or environment that somebody has to mend.

  Its message is one line that says what is wrong, where, and what to do. The command line prints
  it as `error: ...` and exits with code 2; no traceback is shown.
  """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
  """Returns the error for a `kind` of thing called `name` that is not among `known`.

  The message offers the nearest known names, or all of them where none is near.
  """
  known = sorted(known)
  near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
  hint = f'did you mean {" or ".join(near)}?' if near else f'choose from {", ".join(known)}'
  return UserError(f'unknown {kind} {name!r}: {hint}')
