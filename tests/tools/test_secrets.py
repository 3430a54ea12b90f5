"""A secret is in no file and no stream of a run; what is saved names its environment variable."""

import os
import subprocess
import sys

import pytest

from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.custom import CustomToolsConfig
from toolformer_jax.tools.mcp import mcp_tools
from toolformer_jax.tools.secrets import expand, redactor, shown_address

SECRET = 'hunter2-äß'


@pytest.mark.parametrize('text, expanded', [
  ('a $NAME_OF_A b', 'a x y b'), ('${NAME_OF_A}s', 'x ys'), ('costs $$5', 'costs $5'), ('a', 'a')])
def test_variables_are_expanded(monkeypatch, text, expanded):
  monkeypatch.setenv('NAME_OF_A', 'x y')
  assert expand(text, 'here') == expanded


@pytest.mark.parametrize('text, message', [
  ('$NOT_SET_ANYWHERE', 'here names the environment variable NOT_SET_ANYWHERE, which is not set'),
  ('5$', r'here: `\$` must be followed by the name')])
def test_what_cannot_be_expanded_is_an_error(text, message):
  with pytest.raises(UserError, match=message):
    expand(text, 'here')


@pytest.mark.parametrize('address, shown', [
  ('https://a:b@example.org:8/mcp?key=c&d', 'https://***@example.org:8/mcp?***'),
  ('https://example.org/mcp', 'https://example.org/mcp'),
  ('http://[::1', '***'), ('python server.py', 'python server.py'),
  ('https://example.org/s/9f3a7c41d2e8b605/mcp', 'https://example.org/s/***/mcp'),
  ('npx x https://a:b@example.org/mcp?key=c', 'npx x https://***@example.org/mcp?***'),
  ('x --header "Authorization: Bearer abc1" --unit C', 'x --header "Authorization: ***" --unit C')])
def test_addresses_are_shown_without_what_may_be_secret(address, shown):
  assert shown_address(address) == shown


def test_secrets_are_hidden_as_they_are_and_as_a_url_spells_them():
  redact = redactor('https://a:pass%2Fword@h/?key=k%20ey1', {'X-Key': 'header1', 'Unit': 'Celsius'},
                    {'named/1'})
  assert redact('pass%2Fword k ey1 k%20ey1 header1 named/1 named%2F1 Celsius') == (
      '*** *** *** *** *** *** Celsius')
  assert redactor('python a.py --unit=Celsius', {}, ())('Celsius') == 'Celsius'


@pytest.mark.parametrize('value, name', [
  (f'https://user:{SECRET}@example.org/mcp', 'password'),
  (f'https://{SECRET}@example.org/mcp', 'token'),
  (f'https://example.org/mcp?unit=C&api_key={SECRET}', 'api_key'),
  (f'https://example.org/mcp?accessToken={SECRET}', 'accessToken'),
  (f'python server.py --token={SECRET}', '--token'),
  (f'python server.py --api-key {SECRET}', '--api-key'),
  (f'env WEATHER_KEY={SECRET} python server.py', 'WEATHER_KEY'),
  (f' https://user:{SECRET}@example.org/mcp', 'password'),
  (f'https://example.org/mcp?a=1;key={SECRET}', 'key'),
  (f'https://example.org/mcp;auth={SECRET}', 'auth'),
  (f'https://example.org/mcp?accesstoken={SECRET}', 'accesstoken'),
  (f'https://example.org/mcp?jwt={SECRET}', 'jwt'),
  (f'https://example.org/mcp?pass={SECRET}', 'pass'),
  (f'https://user:{SECRET}$$@example.org/mcp', 'password'),
  (f'npx mcp-remote https://user:{SECRET}@example.org/mcp', 'password'),
  (f'npx mcp-remote https://example.org/mcp --header "Authorization: Bearer {SECRET}"',
   'Authorization'),
  (f'postgres-mcp postgresql://user:{SECRET}@db/x', 'password'),
  (f'python server.py --auth {SECRET}', '--auth'),
  (f'python server.py --pat {SECRET}', '--pat'),
  *(({'server': 'python server.py', 'env': {name: SECRET}}, name) for name in (
      'WEATHER_KEY', 'PGPASSWORD', 'DB_PASS', 'GITHUB_PAT', 'SECRET_KEY_BASE', 'OPENAI_APIKEY',
      'AWS_SECRET_ACCESS_KEY')),
  ({'server': 'python server.py', 'env': {'DATABASE_URL': f'postgres://bob:{SECRET}@db/x'}},
   'password'),
  ({'server': 'https://example.org/mcp', 'headers': {'Authorization': SECRET}}, 'Authorization'),
])
def test_a_secret_in_settings_is_refused_and_not_shown(value, name):
  with pytest.raises(UserError, match=f'states the value of {name}, .* write [$]') as refused:
    CustomToolsConfig(mcp={'weather': value})
  assert SECRET not in str(refused.value)


@pytest.mark.parametrize('value', [
  'https://user:$PASSWORD@example.org/mcp?key=${KEY}', 'python server.py --max_tokens 5',
  'python server.py --keys-file keys.txt --monkey=5', 'python server.py --tokenizer gpt2',
  'python server.py --token-file t --max_tokens=9 --author Ann', 'npx x http://localhost:1/mcp',
  {'server': 'python server.py', 'env': {'DB': 'postgres://bob:$PW@db/x', 'BYPASSED': '1'}},
  'env UNIT=C python server.py --token=$TOKEN'])
def test_settings_without_a_secret_are_not(value):
  CustomToolsConfig(mcp={'weather': value})


@pytest.fixture
def secret(monkeypatch):
  pytest.importorskip('mcp', reason='the package mcp is not installed')
  monkeypatch.setenv('MY_SECRET', 'hunter2secret')
  return 'hunter2secret'


def test_what_a_server_says_has_no_secret(connect, secret):
  rogue = connect('mcp_rogue.py', 'tame', env={'COPY_KEY': '$MY_SECRET'})
  assert rogue['echo'](f'my {secret}', Context()) == 'my ***'


def test_an_error_has_no_secret(secret):
  for address in (f'http://a:{secret}@127.0.0.1:1/mcp?key={secret}',
                  'http://a:$MY_SECRET@127.0.0.1:1/$MY_SECRET?key=$MY_SECRET',
                  f'{sys.executable} -c "raise SystemExit(\'$MY_SECRET\')"'):
    with pytest.raises(UserError) as failure:
      mcp_tools(address)
    assert secret not in str(failure.value)


@pytest.mark.parametrize('command', ['annotate', 'evaluate', 'call'])
def test_no_file_and_no_stream_of_a_run_has_the_secret(rogue_web, make_model, tmp_path, secret,
                                                       command):
  save_directory(tmp_path / 'model', make_model(max_positions=2048))
  (tmp_path / 'corpus.jsonl').write_text('{"text": "It is 1 + 2."}\n')
  (tmp_path / 'prompt.txt').write_text('Echo.\n\nA cat is [echo(cat)] cat.\n')
  url = rogue_web.url.replace('http://', 'http://me:$MY_SECRET@') + '?key=$MY_SECRET'
  own = {'annotate': ['--corpus', 'corpus.jsonl', '--tools', 'echo', '--checkpoint', 'model'],
         'evaluate': ['--tasks', 'dateset', '--limit', '1', '--checkpoint', 'model', '--arms',
                      'toolformer', '--tools', 'echo'],
         'call': ['status', 'x']}[command]
  done = subprocess.run(
      [sys.executable, '-m', 'toolformer_jax', command, *own,
       *([] if command == 'call' else ['--output_dir', 'out']),
       f'--gin.CustomToolsConfig.mcp={{"echo": "{url}", "status": "{url}"}}',
       '--gin.echo/ToolConfig.prompt="prompt.txt"', '--gin.ToolConfig.tau_s=0.0',
       '--gin.AnnotationConfig.max_call_tokens=8'],
      cwd=tmp_path, capture_output=True, env={**os.environ, 'JAX_PLATFORMS': 'cpu'})
  assert done.returncode == (2 if command == 'call' else 0), done.stderr
  written = [path.read_bytes() for path in (tmp_path / 'out').rglob('*') if path.is_file()]
  assert bool(written) == (command != 'call')
  assert not [text for text in (done.stdout, done.stderr, *written) if secret.encode() in text]
