"""Tools of real MCP servers: who they are, what they are asked and what they answer."""

import base64
import dataclasses
import hashlib
import json
import pathlib
import shlex
import subprocess
import sys
import time
from concurrent import futures

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolformer_jax.errors import UserError
from toolformer_jax.media.table import MediaTable
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.executor import Executor, ExecutorConfig, Request
from toolformer_jax.tools.mcp import mcp_tools
from toolformer_jax.tools.mcp_arguments import mcp_arguments

pytest.importorskip('mcp', reason='the package mcp is not installed')


def command(script, *arguments):
  return shlex.join([sys.executable, str(pathlib.Path(__file__).parent / script), *arguments])


def ask(tool, argument=''):
  return tool(argument, Context())


def reason(tool, argument='', kind=ToolError):
  """Why the call fails."""
  with pytest.raises(kind) as failure:
    ask(tool, argument)
  return str(failure.value)


# What a tool is asked.


@pytest.mark.parametrize('name, argument, result', [
    ('get_weather', 'Oslo', 'Oslo: 20 C'),  # the one property that is required
    ('get_weather', ' "Oslo" ', 'Oslo: 20 C'),
    ('get_weather', 'Kraków\n🌧', 'Kraków\n🌧: 20 C'),
    ('double', '21', '42'),
    ('double', '-3', '-6'),
    ('double', '21.0', '42'),  # an integer in JSON Schema
    ('double', '{"number": 21}', '42'),
    ('get_weather', '{"city": "Oslo", "unit": "F"}', 'Oslo: 20 F'),
    ('get_weather', '{"unit": "F"}', '{"unit": "F"}: 20 C'),  # lacks what is required
    ('get_weather', '{"town": "Oslo"}', '{"town": "Oslo"}: 20 C'),
    ('halve', '3', '1.5'),
    ('halve', '-1e3', '-500.0'),
    ('negate', 'True', 'False'),
    ('negate', '"false"', 'True'),
    ('total', '[1, 2, 3]', '6'),
    ('greet', 'Ada', 'Hello, Ada!'),
    ('greet', '', 'Hello, world!'),
    ('area', '{"width": 2, "height": 3}', '6 m'),
    ('area', '{"width": 2, "height": 3, "unit": "ft"}', '6 ft'),
])
def test_the_argument_reaches_the_property_it_is_for(example, name, argument, result):
  assert ask(example[name], argument) == result


@pytest.mark.parametrize('name, argument, why', [
    ('double', 'two', 'number must be of type integer'),
    ('double', '2.5', 'number must be of type integer'),
    ('double', '', 'number must be of type integer'),
    ('halve', 'nan', 'number must be of type number or null'),
    ('negate', 'maybe', 'flag must be of type boolean'),
    ('total', '{}', 'numbers must be of type array'),
    ('pid', 'x', 'the tool takes no argument'),
    ('area', '2, 3', 'the argument must be a JSON object: width, height, unit (optional)'),
    ('area', '[2, 3]', 'the argument must be a JSON object: width, height, unit (optional)'),
    ('area', '{"width": NaN, "height": 3}', 'the argument cannot be sent as JSON'),
    ('greet', '\ud800', 'the argument cannot be sent as JSON'),
    ('area', '[' * 100_000, 'the argument must be a JSON object: width, height, unit (optional)'),
])
def test_an_argument_that_does_not_fit_is_not_sent(example, name, argument, why):
  assert reason(example[name], argument) == why


def test_a_property_behind_a_reference_has_its_type(example):
  assert ask(example['rise'], '1') == '2'
  assert reason(example['rise'], 'one') == 'level must be of type integer'


def test_a_server_gets_the_content_of_a_medium(example, tmp_path):
  file = tmp_path / 'dot.gif'
  file.write_bytes(b'GIF89a' + bytes(range(256)))
  context = Context(media=MediaTable.from_files([file]))
  content = file.read_bytes()
  assert example['digest']('image 1', context) == hashlib.sha256(content).hexdigest()
  with pytest.raises(ToolError, match='no image 2: this document has image 1'):
    example['digest']('image 2', context)
  with pytest.raises(ToolError, match='this document has no media'):
    example['digest'](str(file), Context())
  named = dataclasses.replace(example['letters'], media_field='text')
  assert named('image 1', context) == base64.b64encode(content).decode()
  assert named('{"text": "IMAGE 1", "more": "!"}', context).endswith('!')
  assert example['letters']('image 1', context) == 'image 1'


def test_a_reference_inside_all_of_has_its_type():
  schema = {'properties': {'a': {'allOf': [{'$ref': '#/$defs/A'}], 'description': 'A size.'}},
            '$defs': {'A': {'type': 'object'}}, 'required': ['a']}
  assert mcp_arguments('{"width": 2}', schema, MediaTable()) == {'a': {'width': 2}}


def test_schemas_that_refer_to_themselves_end():
  schema = {'properties': {'a': {'$ref': '#/$defs/A'}, 'b': {'$ref': '#/$defs/x~1y~0z'}},
            '$defs': {'A': {'anyOf': [{'$ref': '#/$defs/A'}, {'type': 'integer'}]},
                      'x/y~z': {'type': 'boolean'}}, 'required': ['a']}
  assert mcp_arguments('7', schema, MediaTable()) == {'a': 7}
  assert mcp_arguments('true', schema | {'required': ['b']}, MediaTable()) == {'b': True}
  with pytest.raises(ToolError, match='a must be of type integer'):
    mcp_arguments('seven', schema, MediaTable())
  for reference in ('#/$defs/none', 'https://example.org/schema', '#', 7):
    lost = {'properties': {'a': {'$ref': reference}}}
    assert mcp_arguments('seven', lost, MediaTable()) == {'a': 'seven'}


def test_what_the_server_refuses_is_a_failure(example):
  assert reason(example['area'], '{"width": "wide"}').startswith('error: ')


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner,
                                                                max_size=3))
kinds = st.sampled_from(['string', 'integer', 'number', 'boolean', 'array', 'object', 'null', ''])
properties = st.dictionaries(
    st.sampled_from('ab'), json_values | st.fixed_dictionaries({'type': kinds | st.lists(kinds)}))
schemas = st.fixed_dictionaries({}, optional={
    'properties': properties | json_values, 'required': st.lists(st.sampled_from('abc')) |
    json_values})


@pytest.fixture(scope='module')
def mirror():
  """A tool that answers with its arguments as JSON."""
  tool = {tool.name: tool for tool in mcp_tools(command('mcp_rogue.py', 'tame'))}['mirror']
  yield tool
  tool.close()


@given(schemas, st.text(max_size=20) | json_values.map(json.dumps))
@settings(max_examples=200)
def test_any_argument_is_a_value_or_a_failure_whatever_the_schema_says(mirror, schema, argument):
  try:
    sent = json.loads(ask(dataclasses.replace(mirror, input_schema=schema), argument))
  except ToolError:
    return
  assert isinstance(sent, dict)


# What it answers.


def test_the_texts_of_an_answer_are_joined(example):
  assert ask(example['parts']) == 'one two three'


def test_data_without_a_text_is_json(example):
  assert ask(example['data']) == '{"price":12.5,"where":["Kraków"]}'


def test_the_address_of_a_linked_resource_is_in_the_result(example):
  assert ask(example['link']) == 'see: notes (file:///notes.txt)'


def test_an_answer_without_a_text_is_a_failure(example):
  assert reason(example['picture']) == 'the result has no text'


def test_the_tools_own_error_is_a_failure(example):
  assert reason(example['fail'], 'no cheese') == 'error: Error executing tool fail: no cheese'


def test_megabytes_come_and_more_do_not(example):
  assert len(ask(example['megabytes'], '4')) >= 4 * 2**20 - 1
  assert 'more than 16777216 bytes' in reason(example['megabytes'], '20', ConnectionError)
  assert ask(example['double'], '2') == '4'


def test_the_executor_takes_the_tools_as_they_are(example):
  with Executor(example.values(), ExecutorConfig(max_result_chars=20)) as executor:
    outcomes = executor.run(
        [Request('get_weather', 'Oslo'), Request('megabytes', '1'), Request('picture', '')])
  assert [outcome.result for outcome in outcomes] == ['Oslo: 20 C', 'a a a a a a a a a a', None]
  assert outcomes[2].failure == 'picture: the result has no text'


def test_calls_of_many_threads_run_at_once(example):
  def nap(number):
    return ask(example['nap'], f'0.{number}')

  begin = time.monotonic()
  with futures.ThreadPoolExecutor(8) as pool:
    results = list(pool.map(nap, [4, 5] * 8))
  assert results == ['slept 0.4', 'slept 0.5'] * 8
  assert time.monotonic() - begin < 3  # one after the other they take 7


def test_no_more_than_the_ordinary_environment_is_passed_on(monkeypatch, connect):
  monkeypatch.setenv('SECRET_TOKEN', 'x')
  seen = ask(connect('mcp_rogue.py', 'tame')['environment']).split()
  assert 'PATH' in seen and 'SECRET_TOKEN' not in seen


# Who it is.


def test_names_are_those_that_calls_can_have(example):
  tool = example['get_weather']
  assert (tool.server_name, tool.description) == ('get-weather', 'Tells the weather.')


def test_the_version_changes_with_the_description_and_only_then(connect):
  first, same, other = [
      connect('mcp_rogue.py', 'says', text) for text in ('A', 'A', 'B')]
  versions = {name: tool.version for name, tool in first.items()}
  assert len(set(versions.values())) == len(versions)
  assert {name: tool.version for name, tool in same.items()} == versions
  changed = {name for name, tool in other.items() if tool.version != versions[name]}
  assert changed == {'echo'}


def test_the_description_stays_when_the_server_changes_its_mind(connect, tmp_path):
  tools = connect('mcp_rogue.py', 'moody', str(tmp_path / 'starts'))
  ask(tools['pid'])
  reason(tools['die'], kind=ConnectionError)
  assert ask(tools['echo'], 'still there') == 'still there'
  assert tools['echo'].description == 'start 0'
  assert reason(tools['pid']) == 'the server does not have the tool any more'


def test_all_pages_are_read(connect):
  assert sorted(connect('mcp_rogue.py', 'pages')) == [f'tool{i}' for i in range(5)]


# What is wrong from the start.


def test_a_server_has_so_long_to_start():
  with pytest.raises(UserError, match='does not start: not within 0.5 seconds'):
    mcp_tools(command('mcp_rogue.py', 'mute'), start_limit_s=0.5)


@pytest.mark.parametrize('server, why', [
    (command('mcp_rogue.py', 'none'), 'has no tools'),
    (command('mcp_rogue.py', 'twins'), "two tools, 'get-it' and 'get.it'"),
    (command('mcp_rogue.py', 'endless'), 'does not start: more than 100 pages of tools'),
    (shlex.join([sys.executable, '-c', 'import nonsuch']), "No module named 'nonsuch'"),
    ('/no/such/command --now', 'does not start: .*No such file'),
    ('http://127.0.0.1:1/mcp', 'does not answer: All connection attempts failed'),
    ('http://', 'does not answer'),
    ("an 'open quote", 'use a command line or a URL'),
    (' ', 'use a command line or a URL'),
])
def test_a_server_that_gives_no_tools_is_named(server, why):
  with pytest.raises(UserError, match=why) as failure:
    mcp_tools(server)
  assert repr(server) in str(failure.value)
  assert '\n' not in str(failure.value)


def test_without_the_package_the_user_is_told_what_to_install():
  program = ("import sys; sys.modules['mcp'] = None\n"
             "from toolformer_jax.tools.mcp import mcp_tools; mcp_tools('x')")
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
  assert 'UserError' in done.stderr and 'pip install "toolformer_jax[mcp]"' in done.stderr
