"""Reads the communication between devices from the text of a compiled program (HLO).

The text contains the body of a loop once, however often it runs. Each collective is counted as
often as the loops around it run.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

KINDS = ('all-gather', 'all-reduce', 'reduce-scatter', 'all-to-all', 'collective-permute',
         'collective-broadcast', 'ragged-all-to-all')

_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) (?:\(.*)?\{$')
_OPCODE = re.compile(r' *([\w\-]+)\(')
_ARRAY = re.compile(r'\b([a-z]+\d*\w*)\[([\d,]*)\]')
_OPERAND = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(r'\b(?:calls|to_apply)=%?([\w.\-]+)')
_BRANCHES = re.compile(r'\b(?:branch_computations=\{([^}]*)\}'
                       r'|true_computation=(\S+), false_computation=(\S+))')
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_BITS = re.compile(r'[a-z]+(\d+)')
_CHANNEL = re.compile(r'\bchannel_id=(\d+)')


@dataclass(frozen=True)
class Collectives:
  """The collectives of one run of a program.

  Attributes:
    counts: number of collectives by kind.
    bytes: size of the whole arrays on one device, by kind: what is gathered, what is summed.
    unknown_loops: number of loops of unknown length; collectives in them are counted once.
  """

  counts: Counter[str] = field(default_factory=Counter)
  bytes: Counter[str] = field(default_factory=Counter)
  unknown_loops: int = 0


@dataclass(frozen=True)
class _Instruction:
  """`name = type opcode(operands), attributes`."""

  name: str
  type: str
  opcode: str
  operands: tuple[str, ...]
  arguments: str
  attributes: str
  root: bool


_Computation = dict[str, _Instruction]


def collectives(text: str) -> Collectives:
  """Returns the collectives of the program `text`, as `compiled.as_text()` gives it."""
  computations, entry = _parse(text)
  found: dict[object, tuple[str, int, int]] = {}
  unknown: set[str] = set()
  for path, name, times in _runs(computations, entry, unknown):
    for instruction in computations[name].values():
      kind = _kind(instruction, name)
      if kind is None:
        continue
      # A collective that overlaps with computation is a chain of instructions: count it once.
      channel = _CHANNEL.search(instruction.attributes)
      chained = 'chain_id=' in instruction.attributes
      key = (kind, channel[1]) if channel and chained else (path, name, instruction.name)
      found[key] = kind, times, times * _bytes(instruction, computations[name])
  counts: Counter[str] = Counter()
  sizes: Counter[str] = Counter()
  for kind, times, size in found.values():
    counts[kind] += times
    sizes[kind] += size
  return Collectives(counts, sizes, len(unknown))


def _parse(text: str) -> tuple[dict[str, _Computation], str]:
  """Returns the computations by name, and the name of the one that is run."""
  computations: dict[str, _Computation] = {}
  entry, current = '', None
  for line in text.splitlines():
    if match := _COMPUTATION.match(line):
      current = computations.setdefault(match[2], {})
      entry = match[2] if match[1] else entry
    elif current is not None and (instruction := _instruction(line)):
      current[instruction.name] = instruction
  return computations, entry


def _instruction(line: str) -> _Instruction | None:
  """Returns the instruction of a line; None if it has none."""
  left, equals, right = line.strip().partition(' = ')
  if not equals:
    return None
  end = _closing(right, 0) + 1 if right.startswith('(') else right.find(' ')
  match = _OPCODE.match(right, end)
  if match is None:
    return None
  close = _closing(right, match.end() - 1)
  arguments = right[match.end():close]
  return _Instruction(
      left.removeprefix('ROOT ').lstrip('%'), right[:end], match[1],
      tuple(_OPERAND.findall(arguments)), arguments, right[close:], left.startswith('ROOT '))


def _closing(text: str, start: int) -> int:
  """Returns the index of the parenthesis that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == '(') - (text[i] == ')')
    if not depth:
      return i
  return len(text)


def _runs(computations: dict[str, _Computation], entry: str, unknown: set[str]
          ) -> Iterator[tuple[tuple[str, ...], str, int]]:
  """Yields (path of calls, name, number of runs) for each call of each computation."""
  waiting: list[tuple[tuple[str, ...], str, int]] = [((), entry, 1)]
  while waiting:
    path, name, times = waiting.pop()
    yield path, name, times
    for instruction in computations[name].values():
      trips = 1
      if instruction.opcode == 'while':
        trips = _trips(computations, name, instruction)
        if trips is None:
          unknown.add(instruction.name)
      for called in _called(instruction):
        if called in computations:
          waiting.append(((*path, instruction.name), called,
                          times * (1 if trips is None else trips)))


def _called(instruction: _Instruction) -> list[str]:
  """Returns the computations that an instruction may run: all branches of a conditional."""
  if instruction.opcode == 'while':
    return [_attribute(instruction, 'body')]
  names = _CALLED.findall(instruction.attributes)
  for several, one, other in _BRANCHES.findall(instruction.attributes):
    names += [name.strip(' %,') for name in (several.split(',') if several else (one, other))]
  return names


def _attribute(instruction: _Instruction, name: str) -> str:
  match = re.search(rf'\b{name}=%?([\w.\-]+)', instruction.attributes)
  if match is None:
    raise ValueError(f'{instruction.name} has no attribute {name}')
  return match[1]


def _trips(computations: dict[str, _Computation], outer: str, loop: _Instruction) -> int | None:
  """Returns how often a loop runs that counts up to a constant; None for any other loop."""
  if match := _KNOWN_TRIPS.search(loop.attributes):
    return int(match[1])
  condition = computations[_attribute(loop, 'condition')]
  test = next(instruction for instruction in condition.values() if instruction.root)
  if test.opcode != 'compare' or 'direction=LT' not in test.attributes:
    return None
  counter, limit = condition.get(test.operands[0]), _constant(condition, test.operands[1])
  if counter is None or limit is None or counter.opcode != 'get-tuple-element':
    return None
  index = int(_attribute(counter, 'index'))
  first = _constant(computations[outer], _element(computations[outer], loop.operands[0], index))
  body = computations[_attribute(loop, 'body')]
  root = next(instruction.name for instruction in body.values() if instruction.root)
  step = _increment(body, _element(body, root, index))
  return None if first is None or not step else max(0, math.ceil((limit - first) / step))


def _element(computation: _Computation, name: str, index: int) -> str:
  """Returns the name of element `index` of the tuple called `name`; '' if it is unknown."""
  made = computation.get(name)
  return made.operands[index] if made and made.opcode == 'tuple' else ''


def _constant(computation: _Computation, name: str) -> int | None:
  """Returns the value of a constant, or of a copy of one."""
  made = computation.get(name)
  while made and made.opcode in ('copy', 'bitcast', 'convert', 'reshape'):
    made = computation.get(made.operands[0])
  if made is None or made.opcode != 'constant' or not made.arguments.lstrip('-').isdecimal():
    return None
  return int(made.arguments)


def _increment(computation: _Computation, name: str) -> int | None:
  """Returns the constant that a loop's counter is increased by."""
  made = computation.get(name)
  while made and made.opcode in ('copy', 'bitcast'):
    made = computation.get(made.operands[0])
  if made is None or made.opcode != 'add':
    return None
  return next((value for value in (_constant(computation, operand) for operand in made.operands)
               if value is not None), None)


def _kind(instruction: _Instruction, computation: str) -> str | None:
  """Returns the kind of a collective; None for other instructions."""
  kind = instruction.opcode.removesuffix('-start')
  if kind not in KINDS:
    return None
  # TPUs fuse an all-reduce with the slicing of each device's part.
  fused = kind == 'all-reduce' and computation.startswith('all-reduce-scatter')
  return 'reduce-scatter' if fused else kind


def _bytes(instruction: _Instruction, computation: _Computation) -> int:
  """Returns the size of the whole arrays of a collective."""
  if instruction.opcode.startswith('reduce-scatter'):
    return sum(sum(_sizes(computation[name].type)) for name in instruction.operands)
  sizes = _sizes(instruction.type)
  pairs = instruction.opcode in ('all-gather-start', 'collective-permute-start')
  # Such a type contains operands, results and counters of the hardware.
  return max(sizes, default=0) if pairs else sum(sizes)


def _sizes(type: str) -> list[int]:
  """Returns the bytes of each array in a type."""
  return [math.prod(map(int, filter(None, dims.split(',')))) * _bits(dtype) // 8
          for dtype, dims in _ARRAY.findall(type)]


def _bits(dtype: str) -> int:
  match = _BITS.match(dtype)
  return int(match[1]) if match else 8  # 'pred'
