"""The exceptions for errors that the user can fix, and for calls without a result."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """An error in the input, the configuration or the environment, which the user can fix.

  The message is one line that says what is wrong, where, and what to do. The command line prints it
  as `error: ...`, without a traceback, and exits with code 2.
  """


class NotLocalError(UserError):
  """Something is not on this machine, and the caller has asked to download nothing."""


class ToolError(Exception):
  """The tool has no result for this argument. The message says why and is counted in reports.

  All other exceptions are temporary failures, such as a crash or no network. Those calls are made
  again in a later run.
  """


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
  """Returns an error for an unknown `name` of a `kind` of thing.

  The message suggests similar names in `known`, or lists all of them.
  """
  known = sorted(known)
  near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
  hint = f'did you mean {" or ".join(near)}?' if near else f'choose from {", ".join(known)}'
  return UserError(f'unknown {kind} {name!r}: {hint}')
