"""The structure of the package: who imports whom, how large things are, what is documented."""

import ast
import importlib.util
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / 'toolformer_jax'
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob('*.py'))}
TREES = {name: ast.parse(path.read_text('utf-8')) for name, path in FILES.items()}
CORE = ('models.decoder', 'inference.scoring', 'inference.branch_sampling', 'inference.engine',
        'annotation.pipeline', 'data.corpus', 'training.finetune', 'checkpoints.pretrained',
        'planning.search', 'tools.executor', 'evaluation.runner', 'evaluation.tasks', 'api')

LOW = {'calls', 'errors', 'runtime', 'sharding', 'tokenizer', 'tokenizer_steps',
       '__init__'}
# The rooms that each room may import, besides itself and what stands in LOW.
ARROWS = {
  **dict.fromkeys(LOW, set()),
  'media': set(),
  'data': {'media'},
  'models': set(),
  'checkpoints': {'data', 'models'},
  'compression': {'checkpoints', 'models'},
  'inference': {'models'},
  'tools': {'checkpoints', 'data', 'inference', 'media'},
  'annotation': {'data', 'inference', 'media', 'models', 'tools'},
  'training': {'annotation', 'checkpoints', 'data', 'inference', 'models'},
  'evaluation': {'data', 'inference', 'media', 'models', 'tools'},
  'experiments': {'annotation', 'api', 'checkpoints', 'compression', 'data', 'evaluation',
                  'inference', 'media', 'models', 'planning', 'tools', 'training'},
  'planning': {'annotation', 'checkpoints', 'data', 'inference', 'models', 'training'},
  'view': {'annotation', 'data', 'media'},
  'serving': {'data', 'inference', 'media', 'models', 'tools'},
  'api': {'annotation', 'checkpoints', 'compression', 'data', 'evaluation', 'inference', 'media',
          'models', 'tools', 'training'},
  'config': {'annotation', 'checkpoints', 'compression', 'data', 'evaluation', 'experiments',
             'inference', 'media', 'models', 'serving', 'tools', 'training'},
  'commands': {'annotation', 'api', 'checkpoints', 'compression', 'config', 'data', 'evaluation',
               'experiments', 'media', 'planning', 'serving', 'tools', 'view'},
  'cli': {'commands'},
  '__main__': {'cli'},
}


def room_of(name: str) -> str:
  """Returns the room of a module, by its path in the package."""
  return name.partition('/')[0].removesuffix('.py')


def imports(name: str) -> Iterator[str]:
  """Yields the files that a file imports, in its functions as well, but not for types alone."""
  for_types = {id(inner) for node in ast.walk(TREES[name]) if isinstance(node, ast.If)
               and 'TYPE_CHECKING' in ast.dump(node.test) for inner in ast.walk(node)}
  for node in ast.walk(TREES[name]):
    if id(node) in for_types:
      continue
    if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('toolformer_jax'):
      for alias in node.names:
        yield file_of(f'{node.module}.{alias.name}') or file_of(node.module)
    elif isinstance(node, ast.Import):
      yield from (file_of(alias.name) for alias in node.names
                  if alias.name.startswith('toolformer_jax'))


def file_of(module: str) -> str | None:
  """Returns the file of a module in the package; None if there is none."""
  path = '/'.join(module.split('.')[1:])
  return next((name for name in (f'{path}.py', f'{path}/__init__.py', path) if name in FILES),
              '__init__.py' if not path else None)


def functions(name: str) -> Iterator[ast.FunctionDef]:
  """Yields all functions and methods of a file."""
  yield from (node for node in ast.walk(TREES[name])
              if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_import_goes_in_a_circle():
  graph = {name: set(filter(None, imports(name))) - {name} for name in FILES}
  while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
    graph = {name: targets for name, targets in graph.items() if name not in leaves}
  assert graph == {}


@pytest.mark.parametrize('name', FILES)
def test_arrows_point_one_way(name):
  rooms = {room_of(target) for target in imports(name) if target}
  assert rooms <= ARROWS[room_of(name)] | LOW | {room_of(name)}


def test_only_the_registry_of_tools_knows_models():
  users = {name for name in FILES if room_of(name) == 'tools'
           for target in filter(None, imports(name))
           if room_of(target) in ('inference', 'checkpoints')}
  assert users == {'tools/registry.py'}


@pytest.mark.parametrize(('library', 'rooms'), [
  ('gin', {'config'}), ('argparse', {'cli', 'commands'}), ('flax', {'models', 'sharding'})])
def test_a_library_stays_in_its_room(library, rooms):
  pattern = re.compile(rf'^\s*(import|from) {library}\b', re.MULTILINE)
  assert {room_of(name) for name, path in FILES.items()
          if pattern.search(path.read_text('utf-8'))} == rooms


def test_nothing_private_is_imported():
  private = re.compile(
      r'^\s*(?:from [\w.]*\b_(?!_)\w+|import [\w.]*\._(?!_)\w+|from \S+ import _(?!_))',
      re.MULTILINE)
  assert not [name for name, path in FILES.items() if private.search(path.read_text('utf-8'))]


def test_the_house_is_small():
  assert len([name for name in FILES if '/' not in name]) <= 9
  assert {name: size for name, path in FILES.items()
          if (size := len(path.read_text('utf-8').splitlines())) > 400} == {}
  sizes = {f'{name}: {function.name}': function.end_lineno - function.lineno + 1
           for name in FILES for function in functions(name)}
  assert {name: size for name, size in sizes.items() if size > 60} == {}
  assert sorted(sizes.values())[len(sizes) // 2] < 15


@pytest.mark.parametrize('name', FILES)
def test_public_functions_are_documented(name):
  public = [node for node in TREES[name].body if isinstance(node, ast.FunctionDef)
            and not node.name.startswith('_')]
  assert [function.name for function in public if not ast.get_docstring(function)] == []


@pytest.mark.parametrize('name', FILES)
def test_public_and_jitted_functions_are_annotated(name):
  methods = {id(function) for node in ast.walk(TREES[name]) if isinstance(node, ast.ClassDef)
             for function in node.body}
  outermost = [*TREES[name].body, *(function for node in TREES[name].body
                                    if isinstance(node, ast.ClassDef) for function in node.body)]
  for function in functions(name):
    jitted = any('jit' in ast.dump(decorator) for decorator in function.decorator_list)
    if jitted or (function in outermost and not function.name.startswith('_')):
      parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
      given = parameters[id(function) in methods:]  # without self or cls
      assert all(parameter.annotation for parameter in given), function.name
      assert function.returns is not None, function.name


@pytest.fixture(scope='module')
def loaded() -> set[str]:
  """Top-level modules that a new process has after importing the core."""
  code = '\n'.join(f'import toolformer_jax.{name}' for name in CORE)
  code += '\nimport json, sys\nprint(json.dumps([n for n in sys.modules if "." not in n]))'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize('name', ['tensorflow', 'tensorflow_datasets', 'seqio', 'torch',
                                  'transformers', 'gin'])
def test_the_core_does_not_load(loaded, name):
  assert 'jax' in loaded and name not in loaded


SCRIPTS = sorted((PACKAGE.parent / 'experiments').glob('*.py'))


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_every_experiment_can_be_imported(experiment, path):
  assert experiment(path.stem).__doc__ and importlib.util.find_spec(path.stem)
