"""Secrets in settings: `$NAME` stands for an environment variable, and is all that is ever saved.

Settings are written to config.gin, which lies in the checkpoints that people share. So a setting
names the variable that holds a secret; its value is read when it is used, and taken out of every
message that leaves the tool.
"""

import os
import re
import shlex
import string
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from toolformer_jax.errors import UserError

_HIDDEN = '***'
_MIN_CHARS = 4  # shorter ones, such as a unit or a mode, are no secrets and would hide words
_SECRET_NAME = re.compile(
    r'(?i)(?!.*(?:file|path|dir|limit)$)'
    r'(?:.*(?:api[-_]?key|token|secret|password|passwd|passphrase|credentials?|authorization|jwt)'
    r'(?![a-z])|(?:.*[-_.])?(?:key|pass|pat|pwd|auth|authentication|sig|signature|session|cookie)$'
    r'|(?-i:.*[a-z](?:Key|Pass))$)')
_URL = re.compile(r'\s*https?://', re.IGNORECASE)
_ANY_URL = re.compile(r'\w+://[^\s"\']+')  # of a command, or of a variable such as DATABASE_URL
_HEADER = re.compile(r'([A-Za-z][\w-]*):\s*([^/\s].*)')
# A part of a path that nobody would type, as in https://example.org/s/9f3a7c41d2e8b605/mcp.
_RANDOM = re.compile(r'(?=[^/]*\d)(?=[^/]*[A-Za-z])[\w-]{16,}')


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
    UserError: a password in a URL, or the value of something that is called `key`, `token` or the
      like, is not an environment variable.
  """
  for name, value in _secrets(address, values):
    if value and not string.Template(value).get_identifiers():
      raise UserError(f'{where} states the value of {name}, and settings are saved in config.gin, '
                      f'which others may read; write ${_variable(name)}, and set this environment '
                      'variable')


def shown_address(address: str) -> str:
  """Returns the address of a server without what may be secret in it."""
  if is_url(address):
    return _shown_url(address.strip())
  shown = _ANY_URL.sub(lambda url: _shown_url(url[0]), address)
  for _, value in _secrets(address, {}):
    shown = shown.replace(value, _HIDDEN) if len(value) >= _MIN_CHARS else shown
  return shown


def _shown_url(url: str) -> str:
  try:
    parts = urllib.parse.urlsplit(url)
  except ValueError:
    return _HIDDEN
  host = parts.netloc.rpartition('@')[2]
  user = f'{_HIDDEN}@' if '@' in parts.netloc else ''
  path = _RANDOM.sub(_HIDDEN, parts.path.partition(';')[0])
  query = f'?{_HIDDEN}' if parts.query else ''
  return f'{parts.scheme}://{user}{host}{path}{query}'


def redactor(address: str, values: Mapping[str, str], named: Iterable[str]
             ) -> Callable[[str], str]:
  """Returns a function that hides the secrets of a server in a text.

  Args:
    address: of the server, with the values of variables.
    values: its environment variables or headers, in the same way.
    named: the values of the variables that the settings named.
  """
  secrets = {*named, *(value for _, value in _secrets(address, values))}
  if is_url(address):
    secrets |= {value for _, value in _url_values(address)}
  secrets |= {urllib.parse.quote(secret, safe='') for secret in secrets}
  longest_first = sorted((one for one in secrets if len(one) >= _MIN_CHARS), key=len, reverse=True)
  pattern = re.compile('|'.join(map(re.escape, longest_first)))
  return (lambda text: pattern.sub(_HIDDEN, text)) if longest_first else str


def _secrets(address: str, values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
  """Yields what is secret by its name, and the users and passwords of URLs."""
  texts = [*values.values()]
  named = [*values.items()]
  if is_url(address):
    texts.append(address)
  else:
    named += _words(address)
    texts += _split(address)
  named += [pair for text in texts for url in _ANY_URL.findall(text) for pair in _url_values(url)]
  yield from ((name, value) for name, value in named if _SECRET_NAME.match(name))


def _url_values(url: str) -> list[tuple[str, str]]:
  """Returns user or password of a URL, and its fields, which `&` and `;` separate."""
  try:
    parts = urllib.parse.urlsplit(url.strip())
    user = [('token', parts.username)] if parts.password is None else [('password', parts.password)]
    fields = '&'.join([parts.query, parts.fragment, parts.path.partition(';')[2]])
    return ([(name, value or '') for name, value in user]
            + urllib.parse.parse_qsl(fields.replace(';', '&')))
  except ValueError:  # not a valid URL, which the client says
    return []


def _split(command: str) -> list[str]:
  try:
    return shlex.split(command)
  except ValueError:  # a quote that is not closed, which the client says
    return command.split()


def _words(command: str) -> Sequence[tuple[str, str]]:
  """Returns `NAME=VALUE`, `Name: value` and `--name VALUE` of a command line."""
  words = _split(command)
  pairs = [word.partition('=')[::2] for word in words if '=' in word]
  pairs += [(match[1], match[2]) for match in map(_HEADER.fullmatch, words) if match]
  return pairs + [(word, value) for word, value in zip(words, words[1:], strict=False)
                  if word.startswith('-') and '=' not in word and not value.startswith('-')]


def _variable(name: str) -> str:
  return re.sub(r'\W+', '_', name).strip('_').upper()
