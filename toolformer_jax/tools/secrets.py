"""Secrets in settings: `$NAME` stands for an environment variable, and is all that is ever saved.

Settings are written to config.gin, which lies in the checkpoints that people share. So a setting
names the variable that holds a secret; its value is read when it is used, and taken out of every
message that leaves the tool.
"""

import os
import re
import string
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence

from toolformer_jax.errors import UserError

_HIDDEN = '***'
_MIN_CHARS = 4  # shorter ones, such as a unit or a mode, are no secrets and would hide words
_SECRET_NAME = re.compile(
    r'(?i)(?:^|[-_.])(?:api-?key|key|token|secret|password|passwd|pwd|sig|signature|credentials?|'
    r'authorization|cookie)$|(?-i:[a-z](?:Key|Token|Secret|Password))$')
_URL = re.compile(r'https?://', re.IGNORECASE)


def is_url(address: str) -> bool:
  """Tells whether the address of a server is a URL; others are command lines."""
  return bool(_URL.match(address))


def expand(text: str, where: str) -> str:
  """Returns `text` with the value of an environment variable for every `$NAME` or `${NAME}`.

  `$$` is a dollar sign.

  Raises:
    UserError: a variable is not set, or a `$` is followed by something else; `where` says whose.
  """
  try:
    return string.Template(text).substitute(os.environ)
  except KeyError as error:
    raise UserError(f'{where} names the environment variable {error.args[0]}, which is not set'
                    ) from error
  except ValueError as error:
    raise UserError(f'{where}: `$` must be followed by the name of an environment variable; write '
                    '$$ for a dollar sign') from error


def variables(texts: Iterable[str]) -> set[str]:
  """Returns the values of the environment variables that texts name."""
  names = {name for text in texts for name in string.Template(text).get_identifiers()}
  return {os.environ[name] for name in names if name in os.environ}


def check_no_secret(address: str, values: Mapping[str, str], where: str) -> None:
  """Checks that no secret stands in settings as itself.

  Args:
    address: a URL or the words of a command.
    values: environment variables or HTTP headers, by name.
    where: the setting, for the error.

  Raises:
    UserError: a password in the URL, or the value of something that is called `key`, `token` or the
      like, is not an environment variable.
  """
  named = [*values.items(), *(_url_values(address) if is_url(address) else _words(address))]
  for name, value in named:
    if value and '$' not in value and _SECRET_NAME.search(name):
      raise UserError(f'{where} states the value of {name}, and settings are saved in config.gin, '
                      f'which others may read; write ${_variable(name)}, and set this environment '
                      'variable')


def shown_address(address: str) -> str:
  """Returns the address of a server without what may be secret in it."""
  if not is_url(address):
    return address
  try:
    parts = urllib.parse.urlsplit(address)
  except ValueError:
    return _HIDDEN
  host = parts.netloc.rpartition('@')[2]
  user = f'{_HIDDEN}@' if '@' in parts.netloc else ''
  query = f'?{_HIDDEN}' if parts.query else ''
  return f'{parts.scheme}://{user}{host}{parts.path}{query}'


def redactor(address: str, values: Mapping[str, str], named: Iterable[str]
             ) -> Callable[[str], str]:
  """Returns a function that hides the secrets of a server in a text.

  Args:
    address: of the server, with the values of variables.
    values: its environment variables or headers, in the same way.
    named: the values of the variables that the settings named.
  """
  secrets = {*named, *(value for name, value in values.items() if _SECRET_NAME.search(name))}
  if is_url(address):
    secrets |= {value for _, value in _url_values(address)}
  else:
    secrets |= {value for name, value in _words(address) if _SECRET_NAME.search(name)}
  secrets |= {urllib.parse.quote(secret, safe='') for secret in secrets}
  longest_first = sorted((one for one in secrets if len(one) >= _MIN_CHARS), key=len, reverse=True)
  pattern = re.compile('|'.join(map(re.escape, longest_first)))
  return (lambda text: pattern.sub(_HIDDEN, text)) if longest_first else str


def _url_values(url: str) -> list[tuple[str, str]]:
  """Returns user, password and the fields of the query of a URL."""
  try:
    parts = urllib.parse.urlsplit(url)
    user = [('token', parts.username)] if parts.password is None else [('password', parts.password)]
    return [(name, value or '') for name, value in user] + urllib.parse.parse_qsl(parts.query)
  except ValueError:  # not a valid URL, which the client says
    return []


def _words(command: str) -> Sequence[tuple[str, str]]:
  """Returns `NAME=VALUE` and `--name VALUE` of a command line."""
  words = command.split()
  pairs = [word.partition('=')[::2] for word in words if '=' in word]
  return pairs + [(word, value) for word, value in zip(words, words[1:], strict=False)
                  if word.startswith('-') and '=' not in word and not value.startswith('-')]


def _variable(name: str) -> str:
  return re.sub(r'\W+', '_', name).strip('_').upper()
