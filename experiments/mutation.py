"""Mutations of bytes, texts and JSON values, for `fuzz.py`; the given Random makes all choices."""

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

_NUMBERS = (b'0', b'-1', b'1e999', b'nan', b'99999999999999999999', b'2147483648', b'0.0000001')
_PIECES = (b'\0', b'\xff', b'\xed\xa0\x80', '\u2028'.encode(), '\U0001f600'.encode(), b'\r\n',
           b'"', b"'", b'\\', b'(', b')', b'[', b']', b'{', b'}', b'{{', b'}}', b'[[', b']]', b'<',
           b'</', b'>', b'->', b' [', b'%', b'$', b'@', b'=', b',', b':', b'\\ud800', b' ' * 50)
_VALUES = (None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308, float('nan'),
           float('inf'), '', 'x', '\0', '\ud800', 'a' * 5000, [], {}, [1], [[]], {'a': 1}, [None],
           [1, 'a', None], {'': {}})

_DEEP = 'nested lists'  # stands for them: Python could not write them


def mutate_bytes(seed: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
  """Returns `seed` after one to eight random changes; some take pieces of `others`."""
  data = bytearray(seed)
  for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 100, 1000)))
    match rng.randrange(9):
      case 0:
        del data[at:end]
      case 1:
        data[at:at] = rng.choice(_PIECES) * rng.choice((1, 1, 1, 2, 200))
      case 2:
        data[at:at] = rng.choice(_NUMBERS)
      case 3:
        data[at:at] = data[at:end] * rng.choice((1, 2, 50))
      case 4 if at < len(data):
        data[at] ^= 1 << rng.randrange(8)
      case 5 if at < len(data):
        data[at] = rng.randrange(256)
      case 6 if rng.random() < 0.3:
        del data[at:]
      case 7:
        other = rng.choice(others)
        begin = rng.randrange(len(other) + 1)
        data[at:end] = other[begin:begin + rng.choice((1, 8, 64, 512))]
      case 8:
        data[at:end] = rng.randbytes(end - at)
  return bytes(data)


def mutate_text(seed: str, others: Sequence[str], rng: random.Random) -> str:
  """Returns a text after random changes of its bytes; what is no UTF-8 then is half a surrogate."""
  seeds = [text.encode('utf-8', 'replace') for text in (seed, *others)]
  data = mutate_bytes(seeds[0], seeds[1:], rng)
  return data.decode('utf-8', rng.choice(('replace', 'replace', 'surrogateescape')))


def mutate_json(seed: Any, rng: random.Random) -> Any:
  """Returns a copy of a JSON value in which one to three places were replaced, added or removed."""
  value = [copy.deepcopy(seed)]
  for _ in range(rng.choice((1, 1, 1, 2, 3))):
    holder, key = rng.choice(list(_places(value)))
    match rng.randrange(6):
      case 0 if holder is not value:
        del holder[key]
      case 1:
        holder[key] = [holder[key]] * rng.choice((1, 1, 3))
      case 2:
        holder[key] = _changed(holder[key], rng)
      case 3 if isinstance(holder, dict):
        holder[rng.choice(('', 'x', 'attention', '\ud800', *holder))] = rng.choice(_VALUES)
      case 4 if rng.random() < 0.1:
        holder[key] = _DEEP
      case _:
        holder[key] = copy.deepcopy(rng.choice(_VALUES))
  return value[0]


def json_bytes(value: Any) -> bytes:
  """Returns a value as JSON, with NaN, halves of surrogate pairs and 100,000 nested lists."""
  text = json.dumps(value)
  return text.replace(f'"{_DEEP}"', '[' * 100_000 + ']' * 100_000).encode()


def _places(holder: Any) -> Any:
  """Yields each container below `holder` with each of its keys."""
  for key in list(range(len(holder)) if isinstance(holder, list) else holder):
    yield holder, key
    if isinstance(holder[key], list | dict):
      yield from _places(holder[key])


def _changed(value: Any, rng: random.Random) -> Any:
  """Returns a value of the same type that is a little different."""
  match value:
    case bool():
      return not value
    case int() | float():
      return rng.choice((-value, value + 1, value * 2, value * 10**9, value + 0.5, str(value)))
    case str():
      return mutate_text(value, [value, 'x'], rng)
  return value
