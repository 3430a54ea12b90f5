"""The arguments of an MCP tool: from the text of a call to the JSON object of a schema."""

import base64
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from toolformer_jax import calls
from toolformer_jax.media.table import MediaTable
from toolformer_jax.tools.base import ToolError

_BOOLEANS = {'true': True, 'false': False}


def mcp_arguments(argument: str, schema: Mapping[str, Any], media: MediaTable,
                  media_field: str = '') -> dict[str, Any]:
  """Returns the argument of a call as the JSON object that `schema` describes.

  If the schema has one property, or requires exactly one, the argument is the value of that
  property, unless it is a JSON object of the schema's properties. If the schema has no property,
  the argument must be empty. In all other cases it must be a JSON object.

  Args:
    argument: of the call.
    schema: JSON schema of an object.
    media: of the text that the call is in.
    media_field: the property whose value is a handle such as `image 1`, instead of which the
      content of the file is sent, in base64. So are properties that the schema says are base64.

  Raises:
    ToolError: the argument does not match the schema, or names a medium that is not there.
    OSError: the file of a medium is gone or has changed.
  """
  properties, _ = _properties(schema)
  values = _values(calls.unquote(argument), schema)
  for name, value in values.items():
    is_media = name == media_field or _is_base64(properties.get(name), schema)
    if is_media and isinstance(value, str):
      values[name] = base64.b64encode(media.resolve(value).read_bytes()).decode()
  _check_serializable(values)
  return values


def _values(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values of properties by name."""
  properties, required = _properties(schema)
  given = parse_object(text)
  if not properties:
    if text and given != {}:
      raise ToolError('the tool takes no argument')
    return {}
  if len(properties) > 1 and len(required) != 1:
    if given is None:
      raise ToolError(f'the argument must be a JSON object: {_describe(properties, required)}')
    return given
  if given is not None and set(required) <= given.keys() <= properties.keys():
    return given
  name, = required or properties
  if not text and not required:
    return {}
  return {name: _parse_value(text, name, properties[name], schema)}


def _properties(schema: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Returns the schemas of all properties by name, and the names of the required ones."""
  described = schema.get('properties')
  required = dict.fromkeys(name for name in _list(schema.get('required')) if isinstance(name, str))
  # A schema may require a property that it does not describe.
  properties = required | (described if isinstance(described, dict) else {})
  return properties, list(required)


def property_names(schema: Mapping[str, Any]) -> list[str]:
  """Returns the names of the properties that a JSON schema describes or requires."""
  return list(_properties(schema)[0])


def _describe(properties: Iterable[str], required: Iterable[str]) -> str:
  """Returns the names of all properties, for an error."""
  optional = [f'{name} (optional)' for name in properties if name not in required]
  return ', '.join([*required, *optional])


def parse_object(text: str) -> dict[str, Any] | None:
  """Returns the JSON object in `text`, or None if it is anything else."""
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    return None
  return value if isinstance(value, dict) else None


def _parse_value(text: str, name: str, schema: Any, root: Mapping[str, Any]) -> Any:
  """Returns `text` as the value of the property `name`, in the first type that can be parsed."""
  types = _json_types(schema, root)
  if not types or 'string' in types:
    return text
  for json_type in types:
    try:
      return _PARSERS[json_type](text)
    except (KeyError, ValueError, RecursionError):
      continue
  raise ToolError(f'{name} must be of type {" or ".join(types)}')


def _json_types(schema: Any, root: Mapping[str, Any]) -> list[str]:
  """Returns the JSON types that `schema` allows."""
  return [json_type for one in _alternatives(schema, root)
          for json_type in [one.get('type'), *_list(one.get('type'))]
          if isinstance(json_type, str)]


def _is_base64(schema: Any, root: Mapping[str, Any]) -> bool:
  """Whether a string of `schema` is the content of a file."""
  return any('base64' in (one.get('contentEncoding'), one.get('format'))
             for one in _alternatives(schema, root))


def _alternatives(schema: Any, root: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Returns `schema`, what it refers to in `root`, and the parts and alternatives of both, once.

  `allOf` with one reference is how a reference is written that has a description of its own.
  """
  found: dict[int, dict[str, Any]] = {}
  waiting = [schema]
  while waiting:
    one = waiting.pop()
    if isinstance(one, dict) and id(one) not in found:
      found[id(one)] = one
      for key in ('oneOf', 'anyOf', 'allOf'):
        waiting += reversed(_list(one.get(key)))
      waiting.append(_referred(one.get('$ref'), root))
  return list(found.values())


def _referred(reference: Any, root: Mapping[str, Any]) -> Any:
  """Returns the schema at `#/$defs/Size` in `root`; None if there is none."""
  if not isinstance(reference, str) or not reference.startswith('#/'):
    return None  # references to other documents are not followed
  found: Any = root
  for key in reference[2:].split('/'):
    key = key.replace('~1', '/').replace('~0', '~')  # RFC 6901
    found = found.get(key) if isinstance(found, Mapping) else None
  return found


def _list(value: Any) -> list[Any]:
  return value if isinstance(value, list) else []


def _integer(text: str) -> int:
  try:
    return int(text)
  except ValueError:  # 5.0 is an integer in JSON Schema
    number = float(text)
    if not number.is_integer():
      raise
    return int(number)


def _number(text: str) -> float:
  number = float(text)
  if not math.isfinite(number):
    raise ValueError(text)
  return number


def _json(expected: type) -> Callable[[str], Any]:
  def parse(text: str) -> Any:
    value = json.loads(text)
    if not isinstance(value, expected):
      raise ValueError(text)
    return value
  return parse


_PARSERS: dict[str, Callable[[str], Any]] = {
    'integer': _integer,
    'number': _number,
    'boolean': lambda text: _BOOLEANS[text.lower()],
    'array': _json(list),
    'object': _json(dict),
}


def _check_serializable(arguments: dict[str, Any]) -> None:
  try:
    json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
  except ValueError as error:  # a lone surrogate, or NaN
    raise ToolError('the argument cannot be sent as JSON') from error
