"""The user's own tools: functions by module, file and object, and tools of MCP servers by name."""

import functools
import pathlib
import shlex
import sys

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.media.table import MediaTable
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.custom import CustomToolsConfig, function_tool
from toolformer_jax.tools.registry import Toolbox, build_tools

HERE = pathlib.Path(__file__).parent
FILE = """
import helper_of_my_tools
from toolformer_jax.tools.function import tool

def upper(argument):
  return helper_of_my_tools.shout(argument)

@tool(name='Titled', version='7')
def with_title(argument, context):
  return f'{argument} of {context.title}'
"""


def ask(tool, argument='cat', **context):
  return tool(argument, Context(**context))


@pytest.fixture
def file(tmp_path, monkeypatch):
  """A file with two functions, which imports the file beside it."""
  (tmp_path / 'my_tools.py').write_text(FILE)
  (tmp_path / 'helper_of_my_tools.py').write_text('def shout(text):\n  return text.upper()\n')
  monkeypatch.setattr(sys, 'path', [*sys.path])
  return tmp_path / 'my_tools.py'


def test_a_function_of_a_file_is_a_tool(file):
  tool = function_tool('', f'{file}:upper')
  assert (tool.name, ask(tool)) == ('upper', 'CAT')
  titled = function_tool('', f'{file}:with_title')
  assert (titled.name, titled.version, ask(titled, title='x')) == ('Titled', '7', 'cat of x')
  assert function_tool('Up', f'{file}:upper').name == 'Up'


def test_two_files_of_the_same_name_are_two_modules(file, tmp_path):
  other = tmp_path / 'other' / 'my_tools.py'
  other.parent.mkdir()
  other.write_text('def upper(argument):\n  return argument[::-1]\n')
  assert ask(function_tool('', f'{other}:upper')) == 'tac'
  assert ask(function_tool('', f'{file}:upper')) == 'CAT'


def test_paths_and_objects_are_tools_among_names(file):
  class Reverse:
    def __call__(self, argument):
      return argument[::-1]
  built = build_tools(['calculator', f'{file}:upper', Reverse(), functools.partial(max, key=str)],
                      Toolbox())
  assert [tool.name for tool in built] == ['Calculator', 'upper', 'Reverse', 'max']
  assert [ask(tool, 'ab') for tool in built[1:]] == ['AB', 'ba', 'b']


@pytest.mark.parametrize('given, message', [
  (lambda argument: argument, "'<lambda>' cannot be written in calls; give it a name"),
  (5, 'a tool is a function, an object that can be called, or the name of a tool, not 5'),
  (None, 'not None'),
  ('nowhere.py:upper', "cannot import a tool from 'nowhere.py:upper' .FileNotFoundError"),
  ('json:nothing', 'AttributeError'),
  ('json:__doc__', 'a tool is a function'),
])
def test_what_is_no_tool_is_an_error_of_one_line(given, message):
  with pytest.raises(UserError, match=message):
    build_tools([given], Toolbox())


def test_a_file_that_ends_the_program_is_an_error(tmp_path):
  (tmp_path / 'ends.py').write_text('raise SystemExit(3)')
  with pytest.raises(UserError, match='SystemExit'):
    function_tool('', f'{tmp_path / "ends.py"}:upper')


def server(script, *arguments):
  return shlex.join([sys.executable, str(HERE / script), *arguments])


@pytest.fixture
def mcp(request):
  """Returns a function from the settings of one tool to the tool."""
  pytest.importorskip('mcp', reason='the package mcp is not installed')
  opened = []
  def build(name, value):
    custom = CustomToolsConfig(mcp={name: value})
    opened.append(Toolbox(custom=custom).build([name])[0])
    return opened[-1]
  return build


def test_a_tool_of_a_server_may_have_another_name(mcp):
  tool = mcp('Weather', {'server': server('mcp_server.py'), 'tool': 'get-weather'})
  assert (tool.name, ask(tool, 'Oslo')) == ('Weather', 'Oslo: 20 C')


@pytest.mark.parametrize('name', ['get-weather', 'get_weather'])
def test_a_hyphen_is_an_underscore_in_calls(mcp, name):
  tool = mcp(name, server('mcp_server.py'))
  assert (tool.name, ask(tool, 'Oslo')) == ('get_weather', 'Oslo: 20 C')


def test_a_field_of_a_structured_result_is_the_result(mcp):
  given = {'server': server('mcp_server.py'), 'tool': 'data'}
  price, place = (mcp('Data', {**given, 'result_field': field}) for field in ('price', 'where.0'))
  assert (ask(price, ''), ask(place, '')) == ('12.5', 'Kraków')
  assert price.version != place.version
  with pytest.raises(ToolError, match='the result has no field cost'):
    ask(mcp('Data', {**given, 'result_field': 'cost'}), '')


def test_a_field_gets_the_file_behind_a_handle(mcp, tmp_path):
  (tmp_path / 'dot').write_bytes(b'GIF89a')
  given = {'server': server('mcp_server.py'), 'tool': 'letters'}
  plain, media = mcp('Plain', given), mcp('OCR', {**given, 'media_field': 'text'})
  context = Context(media=MediaTable.from_files([tmp_path / 'dot']))
  assert (plain('image 1', context), media('image 1', context)) == ('image 1', 'R0lGODlh')
  assert len({plain.version, media.version,
              mcp('Field', {**given, 'result_field': 'text'}).version}) == 3
  with pytest.raises(UserError, match='letters has no property txt for media_field; it has text'):
    mcp('Wrong', {**given, 'media_field': 'txt'})


def test_a_server_gets_the_variables_that_it_is_given(mcp, monkeypatch):
  monkeypatch.setenv('MY_OTHER_NAME', 'x')
  tool = mcp('environment', {'server': server('mcp_rogue.py', 'tame'),
                             'env': {'UNIT': 'C', 'COPY': '$MY_OTHER_NAME'}})
  seen = ask(tool).split()
  assert {'UNIT', 'COPY'} <= {*seen} and 'MY_OTHER_NAME' not in seen


def test_an_error_of_a_server_is_whole(mcp):
  long = 'no cheese ' * 150
  with pytest.raises(ToolError) as failure:
    ask(mcp('fail', server('mcp_server.py')), long)
  assert str(failure.value).endswith(long.strip())


@pytest.mark.parametrize('value, message', [
  ({'tool': 'x'}, "must be a command line or a URL, or a mapping with a 'server'"),
  (5, 'must be a command line or a URL'),
  ({'server': 'python a.py', 'envs': {}}, "has no field 'envs'; it may have server, tool, env"),
  ({'server': 5}, 'server must be a string'),
  ({'server': 'python a.py', 'env': {'A': 1}}, 'env must be a mapping of strings'),
])
def test_wrong_settings_of_a_server_are_named(value, message):
  with pytest.raises(UserError, match=message):
    CustomToolsConfig(mcp={'a': value})


@pytest.mark.parametrize('value, message', [
  ({'server': 'http://127.0.0.1:1/mcp', 'env': {'A': 'b'}}, 'a command takes env'),
  ({'server': 'python a.py', 'headers': {'A': 'b'}}, 'a URL takes headers'),
])
def test_settings_that_a_server_cannot_have_are_refused(mcp, value, message):
  with pytest.raises(UserError, match=message):
    mcp('a', value)
