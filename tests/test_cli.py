"""Every command does what it says; bad input is one line and exit code 2, with what to do."""

import importlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

import toolformer_jax
from toolformer_jax import cli, sharding
from toolformer_jax.calls import Call
from toolformer_jax.checkpoints.orbax import load_orbax_model, save_model
from toolformer_jax.commands.generate import Printer
from toolformer_jax.data import compression, hub_datasets
from toolformer_jax.data.catalogue import corpus_names
from toolformer_jax.data.input_texts import InputText
from toolformer_jax.errors import UserError
from toolformer_jax.inference.request import GeneratedText, ToolCall
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer

TEXTS = ['She has 48 + 36 equals 84 cats.', 'Of 7 and 5 the total of 12 is odd.']
QUICK = ['--gin.ToolConfig.k=1', '--gin.ToolConfig.m=1', '--gin.calculator/ToolConfig.k=1',
         '--gin.calculator/ToolConfig.m=1', '--gin.AnnotationConfig.max_call_tokens=8']
SMALL_STEPS = ['--gin.FinetuneConfig.steps=2', '--gin.FinetuneConfig.batch_rows=8',
               '--gin.FinetuneConfig.row_tokens=32', '--gin.FinetuneConfig.save_every=1']


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """A random model of two layers, whose tokens are bytes, and the start of a call."""
  end = '<|endoftext|>'
  tokens = [*sorted(ByteLevel.alphabet()), 'Ġ[', end]
  tokenizer = Tokenizer.byte_level_bpe(tokens, [('Ġ', '[')], [end], split_digits=True, bos_id=None,
                                       eos_id=tokens.index(end))
  config = DecoderConfig(vocab_size=len(tokens), layers=2, embed_dim=32, heads=4, kv_heads=2,
                         head_dim=8, mlp_dim=64, max_positions=8192, rotary_dim=8)
  init = jax.jit(Decoder(config).init)
  variables = sharding.unbox(init(jax.random.key(0), np.zeros((1, 2), np.int32)))
  path = tmp_path_factory.mktemp('checkpoint') / 'tiny'
  save_model(path, LanguageModel.from_variables(config, variables, tokenizer, sharding.make_mesh()))
  return str(path)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
  """A working directory and a cache of their own."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('TOOLFORMER_CACHE', str(tmp_path / 'cache'))
  return tmp_path


@pytest.fixture
def corpus(workplace):
  lines = [json.dumps({'id': f'd{i}', 'text': text}) for i, text in enumerate(TEXTS)]
  (workplace / 'corpus.jsonl').write_text('\n'.join(lines) + '\n')
  return 'corpus.jsonl'


@pytest.fixture
def run(capsys):
  """Runs a command in this process; returns its exit code, standard output and error."""
  def run(*argv):
    code = cli.main([str(arg) for arg in argv])
    return code, *capsys.readouterr()
  return run


@pytest.fixture
def fails(run):
  """Runs a command that has to fail; returns its one line of error."""
  def fails(*argv):
    code, out, err = run(*argv)
    assert (code, out) == (2, ''), err
    *before, line = err.splitlines()
    assert line.startswith('error: ')
    assert not any(part.startswith(('Traceback', 'error')) for part in before)
    return line
  return fails


def run_process(*argv, stdout=subprocess.PIPE):
  script = 'import sys; from toolformer_jax.cli import main; sys.exit(main())'
  return subprocess.run([sys.executable, '-c', script, *map(str, argv)], text=True, check=False,
                        stdout=stdout, stderr=subprocess.PIPE)


# Without a model


def test_information_is_printed_and_every_command_is_in_it(run):
  assert run('--version') == (0, f'{toolformer_jax.__version__}\n', '')
  code, overview, _ = run('--help')
  assert code == 0
  assert run() == (0, overview, '')
  for command in ('fetch', 'call', 'score', 'generate', 'annotate', 'view', 'finetune', 'evaluate',
                  'export'):
    assert f'\n  {command} ' in overview
    code, text, _ = run(command, '--help')
    assert code == 0 and text.startswith(f'usage: toolformer {command} ')


def test_help_names_every_format_of_a_corpus(run):
  text = run('annotate', '--help')[1]
  for part in (*hub_datasets.PREFIXES, *compression.SUFFIXES, '.xml', 'hf:FOLDER', *corpus_names()):
    assert part in text


@pytest.mark.parametrize('argv', [
  ['--help'], ['annotate', '--help'], ['call', 'calculator', '1+1'],
])
def test_what_needs_no_model_does_not_wait_for_jax(argv):
  script = f"""import sys
from toolformer_jax.cli import main
code = main({argv})
sys.exit(code or 'jax' in sys.modules)"""
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('argv, result', [
  (['calculator', '27 + 4 * 2'], '35'),
  (['CALCULATOR', '-(3 - 5)'], '2'),
  (['calculator', '-3+5'], '2'),
  (['calculator', '--3+5'], '8'),
  (['calculator', '--', '-3+5'], '2'),
  (['calculator', '--date', '2023-01-30', '--', '--3+5'], '8'),
  (['calculator', '--date', '2023-01-30', '-3*4'], '-12'),
  (['calendar', '--date', '2023-01-30'], 'Today is Monday, January 30, 2023.'),
])
def test_call_prints_the_result_alone(run, argv, result):
  assert run('call', *argv) == (0, f'{result}\n', '')


def test_search_finds_in_the_corpus_of_its_settings(run, workplace):
  (workplace / 'pages.jsonl').write_text('{"title": "Togo", "text": "Its capital is Lomé."}\n')
  argv = ['call', 'wikisearch', 'capital', "--gin.SearchConfig.corpus='pages.jsonl'"]
  building = 'building the search index of pages.jsonl ...\n'
  assert run(*argv) == (0, 'Togo > Its capital is Lomé.\n', building)


@pytest.fixture
def own_tools(workplace, monkeypatch):
  """Two functions of a user in the working directory, and a prompt for one of them."""
  (workplace / 'my_tools.py').write_text(
      "from toolformer_jax.tools.function import tool\n\n"
      "def upper(argument):\n  return argument.upper()\n\n"
      "@tool(name='Titled', version='7')\n"
      "def with_title(argument, context):\n  return f'{argument} of {context.title}'\n")
  (workplace / 'broken.py').write_text('def upper(:')
  (workplace / 'upper.txt').write_text('Add calls to Upper.\n\nA cat is [Upper(cat)] CAT.\n')
  (workplace / 'lower.txt').write_text(
      'Add calls to upper.\n\nInput: A cat is CAT.\n\nOutput: A cat is [upper(cat)] CAT.\n\n'
      'Input: x\nOutput:\n')
  monkeypatch.setattr(sys, 'path', [*sys.path])
  monkeypatch.delitem(sys.modules, 'my_tools', raising=False)
  return ["--gin.CustomToolsConfig.functions="
          "{'Upper': 'my_tools:upper', 'Titled': 'my_tools:with_title'}"]


def test_a_function_of_ones_own_is_a_tool(run, own_tools):
  assert run('call', 'upper', 'cat', *own_tools) == (0, 'CAT\n', '')
  assert run('call', 'TITLED', 'page', *own_tools) == (0, 'page of None\n', '')


def test_a_function_is_a_tool_by_its_file(run, fails, own_tools, corpus, checkpoint, workplace):
  assert run('call', 'my_tools.py:upper', 'cat') == (0, 'CAT\n', '')
  assert run('call', 'my_tools:with_title', 'page') == (0, 'page of None\n', '')
  code, _, err = run(
      'annotate', '--corpus', corpus, '--checkpoint', checkpoint, '--tools',
      'my_tools.py:upper,calculator', '--output_dir', 'out', *QUICK,
      '--gin.upper/ToolConfig.prompt="lower.txt"')
  assert code == 0, err
  (workplace / 'out').rename(workplace / 'before')
  code, _, err = run('annotate', '--gin_file', 'before/config.gin')
  assert code == 0, err
  assert ((workplace / 'out' / 'run.json').read_bytes()
          == (workplace / 'before' / 'run.json').read_bytes())
  edited = (workplace / 'before' / 'config.gin').read_text() + '# edited\n'
  (workplace / 'before' / 'config.gin').write_text(edited)
  assert 'was not made here. It has tools of its own (TOOLS)' in fails(
      'annotate', '--gin_file', 'before/config.gin')


@pytest.mark.parametrize('binding, message', [
  ("{'Upper': 'my_tools:lower'}", "cannot import Upper from 'my_tools:lower'"),
  ("{'Upper': 'nowhere:upper'}", "cannot import Upper from 'nowhere:upper'"),
  ("{'Upper': 'upper'}", "cannot import Upper from 'upper'"),
  ("{'Upper': 'broken:upper'}", "cannot import Upper from 'broken:upper' (SyntaxError"),
  ("{'no name': 'my_tools:upper'}", "'no name' cannot be the name of a tool"),
  ("{'CALENDAR': 'my_tools:upper'}", "'CALENDAR' is spelled 'Calendar'"),
  ("{'Up': 'my_tools:upper', 'up': 'my_tools:upper'}", "another tool is already called 'up'"),
  ("'my_tools:upper'", "CustomToolsConfig.functions must be a mapping such as {'Name': '...'}"),
])
def test_what_is_no_tool_is_refused(fails, own_tools, binding, message):
  assert message in fails('call', 'upper', 'x', f'--gin.CustomToolsConfig.functions={binding}')


def test_a_tool_of_an_mcp_server_is_called(run, fails, workplace):
  pytest.importorskip('mcp', reason='the package mcp is not installed')
  (workplace / 'server.py').write_text(
      "from mcp.server import MCPServer\n\nserver = MCPServer('words')\n\n\n@server.tool()\n"
      "def count_words(text: str) -> str:\n  return str(len(text.split()))\n\n\nserver.run()\n")
  server = f'--gin.CustomToolsConfig.mcp={{"count_words": "{sys.executable} server.py"}}'
  assert run('call', 'count_words', 'one two three', server) == (0, '3\n', '')
  assert 'has no tool count_letters; it has count_words' in fails(
      'call', 'count_letters', 'x', server.replace('count_words', 'count_letters'))


def test_a_decorated_function_gets_the_name_that_it_is_given(run, own_tools):
  renamed = "--gin.CustomToolsConfig.functions={'Shout': 'my_tools:with_title'}"
  assert run('call', 'shout', 'page', renamed) == (0, 'page of None\n', '')


def test_results_are_cut_as_a_model_would_see_them(run, own_tools):
  cut = '--gin.ExecutorConfig.max_result_chars=10'
  assert run('call', 'upper', 'a long one of many words', *own_tools, cut) == (0, 'A LONG\n', '')


def test_settings_are_for_tools_that_are_there(fails, own_tools):
  argv = ('call', 'calculator', '1+1', *own_tools)
  assert "unknown tool 'uper': did you mean upper" in fails(*argv, '--gin.uper/ToolConfig.k=3')


@pytest.mark.parametrize('argument, reason', [
  ('1/0', 'division by zero'), ('', 'not an arithmetic expression'),
  ('9**9**9**9', 'not an arithmetic expression'), ("__import__('os')", 'not an arithmetic'),
])
def test_call_without_a_result_is_an_error(fails, argument, reason):
  assert f'no result: Calculator: {reason}' in fails('call', 'calculator', argument)


@pytest.mark.parametrize('argv, message', [
  (['anotate'], "unknown command 'anotate': did you mean annotate"),
  (['--verbose'], 'unrecognized arguments: --verbose; see toolformer --help'),
  (['call'], 'required: TOOL; see toolformer call --help'),
  (['call', 'calculatr', '1+1'], "unknown tool 'calculatr': did you mean calculator"),
  (['call', 'calculator', '1+1', '2'], 'unrecognized arguments: 2'),
  (['call', 'calendar', '--date', '30.1.2023'], "'30.1.2023' is not a date"),
  (['call', 'calculator', '1+1', '--gin.ToolConfig.kk=3'], "'kk': did you mean k"),
  (['call', 'calculator', '1+1', '--gin_file', 'papr.gin'], 'did you mean paper.gin'),
  (['fetch', 'smolm2'], "unknown model or corpus 'smolm2': did you mean smollm2-135m"),
  (['fetch', 'smollm2-135m', '--gin.A.b=3'], 'this command has no settings'),
  (['score', '--checkpoint', 'c'], 'required: --input, --output'),
  (['generate', '--checkpoint', 'c', '--tools', 'calculator'], '--prompt --input is required'),
  (['annotate', '--corpus', 'c'],
   'required: --checkpoint, --tools, --output_dir; a gin file can bind them as CHECKPOINT, TOOLS'),
  (['annotate', '--corpus', 'c', '--gin_file', 'models/smollm2_135m.gin'],
   'required: --tools, --output_dir; a gin file'),
  (['annotate', '--gin_file', 'models/smollm2.gin'], 'did you mean models/smollm2_'),
])
def test_wrong_command_lines_are_errors(fails, argv, message):
  assert message in fails(*argv)


@pytest.mark.parametrize('command, code, hint', [('annotate', 130, True), ('fetch', 130, False)])
def test_interrupt_tells_how_to_go_on(run, monkeypatch, command, code, hint):
  module = importlib.import_module(f'toolformer_jax.commands.{command}')
  def interrupt(args):
    raise KeyboardInterrupt
  monkeypatch.setattr(module, 'run', interrupt)
  monkeypatch.setattr(module, 'add_arguments', lambda parser: None)
  found, out, err = run(command)
  assert (found, out) == (code, '')
  assert err.strip().startswith('interrupted') and ('continues where' in err) == hint


def test_reader_that_goes_away_is_no_traceback():
  read_end, write_end = os.pipe()
  os.close(read_end)
  done = run_process('call', 'calculator', '1+1', stdout=write_end)
  os.close(write_end)
  assert (done.returncode, done.stderr) == (141, '')


# With a model


def test_score_gives_each_token_after_the_first_its_log_probability(run, workplace, checkpoint):
  texts = ['abc', 'ab', 'x', 'abcabcabd']
  lines = [json.dumps({'id': i, 'text': text}) for i, text in enumerate(texts)]
  (workplace / 'in.jsonl').write_text('\n'.join(lines))
  code, out, _ = run('score', '--checkpoint', checkpoint, '--input', 'in.jsonl',
                     '--output', 'out.jsonl')
  assert (code, out) == (0, '')
  records = [json.loads(line) for line in (workplace / 'out.jsonl').read_text().splitlines()]
  assert [record['id'] for record in records] == [0, 1, 2, 3]
  model = load_orbax_model(workplace / checkpoint, sharding.make_mesh())
  ids = [model.tokenizer.encode(text) for text in texts]
  # What stands after a token does not matter to it, so that the texts can be filled up.
  filled = np.array([[*tokens, *[0] * (9 - len(tokens))] for tokens in ids], np.int32)
  logits, _ = jax.jit(model.decoder.apply)(model.variables, filled)
  logprobs = np.asarray(jax.nn.log_softmax(logits))
  for i, (tokens, record) in enumerate(zip(ids, records, strict=True)):
    assert record['token_ids'] == tokens
    assert record['logprobs'][0] is None
    expected = [logprobs[i, j - 1, tokens[j]] for j in range(1, len(tokens))]
    np.testing.assert_allclose(record['logprobs'][1:], expected, atol=1e-4)
  left = {path.name for path in workplace.iterdir()} - {'cache'}
  assert left == {'in.jsonl', 'out.jsonl'}


@pytest.mark.parametrize('content, message', [
  ('', 'in.jsonl has no text'),
  ('{"text": "a"}\n{"id": 3}\n', 'in.jsonl:2: the field `text`, a string, is missing'),
  ('{"text": "a"}\n{"text":\n', 'in.jsonl:2: not JSON'),
  (json.dumps({'text': 'a' * 9000}), 'in.jsonl:1 has 9000 tokens, and the model has only'),
])
def test_score_refuses_bad_input_and_keeps_earlier_results(
    fails, workplace, checkpoint, content, message):
  (workplace / 'in.jsonl').write_text(content)
  (workplace / 'out.jsonl').write_text('earlier')
  assert message in fails('score', '--checkpoint', checkpoint, '--input', 'in.jsonl',
                          '--output', 'out.jsonl')
  assert (workplace / 'out.jsonl').read_text() == 'earlier'


@pytest.fixture
def generate(run, checkpoint):
  def generate(*argv, tools=('--tools', 'calculator,Calendar')):
    code, out, err = run('generate', '--checkpoint', checkpoint, *tools,
                         '--gin.GenerationConfig.max_tokens=3', *argv)
    assert code == 0, err
    return out
  return generate


def test_generate_continues_a_prompt(generate):
  text = generate('--prompt', 'Two')
  assert text.startswith('Two') and len(text) > len('Two\n')
  line = json.loads(generate('--prompt', 'Two', '--json'))
  assert line == {'text': text.removesuffix('\n'), 'calls': []}
  assert json.loads(generate('--prompt', '-3+5', '--json'))['text'].startswith('-3+5')


def test_generate_continues_every_text_of_a_file_as_if_it_were_alone(generate, corpus, workplace):
  alone = [generate('--json', '--disable_tools', '--prompt', text) for text in TEXTS]
  assert generate('--json', '--disable_tools', '--input', corpus) == ''.join(alone)
  (workplace / 'lines.txt').write_text('\n'.join(TEXTS))
  assert generate('--json', '--disable_tools', '--input', 'lines.txt', tools=()) == ''.join(alone)


def test_texts_are_printed_in_order_as_soon_as_they_are_finished(capsys):
  texts = [InputText(i, f'text {i}', None, '') for i in range(3)]
  calls = [ToolCall(Call('QA', 'why'), 'QA: no idea'), ToolCall(Call('Calculator', '1+1', '2'))]
  outputs = [GeneratedText([], f' end {i}', calls[:i]) for i in range(3)]
  printer = Printer(texts, as_json=False)
  printer.finish(1, outputs[1])
  assert capsys.readouterr().out == ''
  printer.finish(0, outputs[0])
  assert capsys.readouterr().out == 'text 0 end 0\ntext 1 end 1\n'
  printer.finish(2, outputs[2])
  assert capsys.readouterr().out == 'text 2 end 2\n'


def test_json_says_why_a_call_failed(capsys):
  calls = [ToolCall(Call('QA', 'why'), 'QA: no idea'), ToolCall(Call('Calculator', '1+1', '2'))]
  printer = Printer([InputText(0, 'a', None, '')], as_json=True)
  printer.add_piece(0, ' b')
  printer.finish(0, GeneratedText([], ' b', calls))
  assert json.loads(capsys.readouterr().out) == {'text': 'a b', 'calls': [
      {'tool': 'QA', 'argument': 'why', 'result': None, 'failure': 'QA: no idea'},
      {'tool': 'Calculator', 'argument': '1+1', 'result': '2', 'failure': None}]}


@pytest.mark.parametrize('argv, message', [
  (['--prompt', ' '], '--prompt is blank'),
  (['--prompt', 'a' * 9000], '--prompt has 9001 tokens, too many'),
  (['--input', 'nothing.txt'], 'cannot read nothing.txt'),
  (['--prompt', 'a', '--tools', ' ,'], 'no tool is named'),
  (['--prompt', 'a', '--checkpoint', 'smollm3'], "unknown model 'smollm3': did you mean smollm2"),
  (['--prompt', 'a', '--gin.ModelConfig.data=7'], 'a mesh of 7 x -1 x 1 does not fit'),
])
def test_generate_refuses_bad_input(fails, checkpoint, argv, message):
  assert message in fails('generate', '--checkpoint', checkpoint, '--tools', 'calculator', *argv)


def annotate(corpus, checkpoint, *argv):
  return ('annotate', '--corpus', corpus, '--checkpoint', checkpoint, '--tools', 'calculator',
          '--output_dir', 'run', *QUICK, *argv)


def snapshot(folder):
  return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_annotate_reports_and_does_not_repeat_what_is_done(run, workplace, corpus, checkpoint):
  code, report, err = run(*annotate(corpus, checkpoint, '--seed', 3))
  assert code == 0, err
  assert '2 documents were read; 0 of them are longer than 192 tokens' in report
  assert '| Calculator | 2 | 2 | 2 | 2 | ' in report
  settings = json.loads((workplace / 'run/run.json').read_text())
  assert settings['current']['settings']['seed'] == 3
  made_with = settings['configuration']
  assert len(made_with['checkpoint']) == len(made_with['corpus']) == 64
  assert '\nSEED = 3\n' in (workplace / 'run/config.gin').read_text()
  before = snapshot(workplace / 'run')
  code, again, err = run(*annotate(corpus, checkpoint, '--seed', 3))
  assert (code, again) == (0, report)
  assert snapshot(workplace / 'run') == before


def test_the_saved_configuration_alone_repeats_an_annotation(run, workplace, corpus, checkpoint):
  assert run(*annotate(corpus, checkpoint, '--seed', 3))[0] == 0
  (workplace / 'run').rename(workplace / 'before')
  code, _, err = run('annotate', '--gin_file', 'before/config.gin')
  assert code == 0, err
  for file in (workplace / 'run').rglob('*.*'):
    same = workplace / 'before' / file.relative_to(workplace / 'run')
    assert file.name == 'times.log' or file.read_bytes() == same.read_bytes()
  # Options win over the file.
  code, _, err = run('annotate', '--gin_file', 'before/config.gin', '--output_dir', 'other',
                     '--seed', 4)
  assert code == 0, err
  made_with = json.loads((workplace / 'other/run.json').read_text())['current']
  assert made_with['settings']['seed'] == 4


def test_a_gin_file_of_a_model_serves_every_command(run, fails, workplace, corpus, checkpoint,
                                                    data):
  (workplace / 'model.gin').write_text(f'CHECKPOINT = {checkpoint!r}\nDATA_DIR = "nowhere"\n')
  model = ['--gin_file', 'model.gin']
  assert run('call', 'calculator', '1+1', *model)[:2] == (0, '2\n')
  assert run('score', '--input', corpus, '--output', 'scores.jsonl', *model)[0] == 0
  assert run('generate', '--tools', 'calculator', '--prompt', 'a', *model,
             '--gin.GenerationConfig.max_tokens=2')[0] == 0
  assert run('export', '--output_dir', 'out', *model) == (0, 'out\n', '')
  code, out, err = run('finetune', '--data', data, '--output_dir', 'tuned', *model, *SMALL_STEPS)
  assert code == 0 and out.endswith('The checkpoint is in tuned.\n'), err
  assert 'there is no folder nowhere' in fails('evaluate', '--tasks', 'svamp', '--output_dir', 'e',
                                               *model)
  assert 'unknown model' in fails('score', '--checkpoint', 'nothing', '--input', corpus,
                                  '--output', 'scores.jsonl', *model)
  (workplace / 'tuned').rename(workplace / 'before')
  code, out, err = run('finetune', '--gin_file', 'before/config.gin')
  assert code == 0 and out.endswith('The checkpoint is in tuned.\n'), err
  for name in ('run.json', 'config.gin'):
    assert (workplace / 'tuned' / name).read_bytes() == (workplace / 'before' / name).read_bytes()


def test_annotate_by_stages_is_the_same_as_at_once(run, workplace, corpus, checkpoint):
  for stage in ('sample', 'execute', 'filter', 'merge'):
    code, report, err = run(*annotate(corpus, checkpoint, '--stage', stage))
    assert code == 0, err
    assert ('stage execute is not complete' in report) == (stage == 'sample')
  (workplace / 'run').rename(workplace / 'by stages')
  assert run(*annotate(corpus, checkpoint))[:2] == (0, report)
  for path in (workplace / 'run').rglob('*.jsonl'):
    other = workplace / 'by stages' / path.relative_to(workplace / 'run')
    assert path.read_bytes() == other.read_bytes()


def test_annotate_says_that_a_long_text_was_split(run, workplace, checkpoint):
  (workplace / 'long.jsonl').write_text(json.dumps({'text': ' '.join(TEXTS * 4)}))
  code, report, err = run(*annotate('long.jsonl', checkpoint))
  assert code == 0, err
  assert '1 documents were read; 1 of them are longer than 192 tokens and were split' in report


def test_annotate_refuses_the_folder_of_another_configuration(run, fails, workplace, corpus,
                                                             checkpoint):
  assert run(*annotate(corpus, checkpoint, '--seed', 3))[0] == 0
  before = snapshot(workplace / 'run')
  assert 'settings.max_text_tokens (192 then, 100 now)' in fails(
      *annotate(corpus, checkpoint, '--seed', 3, '--gin.AnnotationConfig.max_text_tokens=100'))
  (workplace / corpus).write_text('{"text": "Another corpus equals 1."}\n')
  assert 'corpus (' in fails(*annotate(corpus, checkpoint, '--seed', 3))
  assert snapshot(workplace / 'run') == before


def test_annotate_goes_on_from_the_stages_that_another_threshold_leaves_alone(
    run, workplace, corpus, checkpoint):
  threshold = '--gin.calculator/ToolConfig.tau_f=-5.0'
  assert run(*annotate(corpus, checkpoint))[0] == 0
  code, report, err = run(*annotate(corpus, checkpoint, threshold))
  assert code == 0 and 'calculator/filter; computed: merged' in err
  (workplace / 'run').rename(workplace / 'first')
  code, again, err = run(*annotate(corpus, checkpoint, threshold, '--from', 'first'))
  assert (code, again) == (0, report) and 'computed: nothing' in err


def test_annotate_with_a_tool_of_ones_own(run, fails, workplace, corpus, checkpoint, own_tools):
  argv = ['annotate', '--corpus', corpus, '--checkpoint', checkpoint, '--tools', 'upper',
          '--output_dir', 'run', *QUICK, *own_tools]
  assert 'there is no prompt for the tool Upper' in fails(*argv)
  assert not (workplace / 'run').exists()
  code, report, err = run(*argv, "--gin.upper/ToolConfig.prompt='upper.txt'")
  assert code == 0 and '| Upper | 2 |' in report, err
  tools = json.loads((workplace / 'run/run.json').read_text())['current']['tools']
  assert tools['Upper']['prompt'] and tools['Upper']['version'] == '1'


def test_a_recorded_run_is_replayed_without_its_tools(run, fails, workplace, corpus, checkpoint,
                                                      own_tools):
  def argv(folder, *more):
    return ['annotate', '--corpus', corpus, '--checkpoint', checkpoint, '--tools', 'upper',
            '--output_dir', folder, *QUICK, *own_tools,
            "--gin.upper/ToolConfig.prompt='upper.txt'", *more]
  code, report, err = run(*argv('recorded', '--record', 'calls.sqlite'))
  assert code == 0, err
  (workplace / 'my_tools.py').unlink()
  sys.modules.pop('my_tools', None)
  assert run(*argv('replayed', '--replay', 'calls.sqlite'))[:2] == (0, report)
  assert 'not allowed with' in fails(*argv('x', '--replay', 'a', '--record', 'b'))


def test_two_processes_of_a_cluster_share_the_work(run, workplace, corpus, checkpoint):
  more = ['--gin.AnnotationConfig.chunk_documents=1', '--gin.AnnotationConfig.window_documents=1']
  code, report, err = run(*annotate(corpus, checkpoint, *more))
  assert code == 0, err
  (workplace / 'run').rename(workplace / 'alone')
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  processes = [run_in_cluster(address, index, *annotate(corpus, checkpoint, '--distributed', *more))
               for index in range(2)]
  outcomes = [process.communicate(timeout=240) for process in processes]
  assert [process.returncode for process in processes] == [0, 0], outcomes
  assert any(out.endswith(report) for out, _ in outcomes)  # before it, the libraries chat
  for path in (workplace / 'alone').rglob('*.json*'):
    other = workplace / 'run' / path.relative_to(workplace / 'alone')
    assert path.read_bytes() == other.read_bytes()


def run_in_cluster(address, index, *argv):
  script = 'import sys; from toolformer_jax.cli import main; sys.exit(main())'
  environment = {**os.environ, 'JAX_COORDINATOR_ADDRESS': address, 'JAX_NUM_PROCESSES': '2',
                 'JAX_PROCESS_ID': str(index), 'JAX_PLATFORMS': 'cpu', 'JAX_NUM_CPU_DEVICES': '8'}
  return subprocess.Popen([sys.executable, '-c', script, *map(str, argv)], text=True,
                          env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize('argv, message', [
  (['--num_shards', '2', '--shard', '2'], 'there is no shard 2 of 2'),
  (['--num_shards', '2'], '--num_shards 2 needs --shard'),
  (['--corpus', '.'], 'is a folder without pages of HTML or Markdown; hf:. reads'),
  (['--distributed', '--shard', '1'], '--distributed sets the shard'),
])
def test_annotate_refuses_what_is_no_shard(fails, corpus, checkpoint, argv, message):
  assert message in fails(*annotate(corpus, checkpoint, *argv))


@pytest.mark.parametrize('content, message', [
  (None, 'there is no file corpora.jsonl: did you mean corpus.jsonl'),
  ('', 'holds no document'),
  ('{"text": "a"}\n{"text": 5}\n', 'corpora.jsonl:2: a document needs the field `text`'),
])
def test_annotate_leaves_no_folder_behind_if_its_corpus_is_broken(
    fails, workplace, corpus, checkpoint, content, message):
  if content is not None:
    (workplace / 'corpora.jsonl').write_text(content)
  assert message in fails(*annotate('corpora.jsonl', checkpoint))
  assert not (workplace / 'run').exists()


@pytest.mark.parametrize('argv, message', [
  (['--stage', 'filter'], 'stage filter of Calculator needs'),
  (['--checkpoint', 'nothing.gguf'], 'there is no file nothing.gguf'),
  (['--tools', 'calculator,wikisaerch'], "unknown tool 'wikisaerch': did you mean wikisearch"),
  (['--output_dir', 'corpus.jsonl'], 'corpus.jsonl is a file'),
  (['--seed', 'x'], "argument --seed: invalid int value: 'x'"),
])
def test_annotate_refuses_bad_input(fails, corpus, checkpoint, argv, message):
  assert message in fails(*annotate(corpus, checkpoint, *argv))


@pytest.fixture
def data(workplace):
  """C* of somebody else: a text with a call."""
  call = {'document_id': 'a', 'tool': 'Calculator', 'argument': '48 + 36', 'position': 23,
          'probability': 0.5, 'result': '84'}
  record = {'id': 'a', 'text': TEXTS[0], 'calls': [call]}
  (workplace / 'cstar.jsonl').write_text(json.dumps(record) + '\n')
  return 'cstar.jsonl'


def test_an_exported_model_scores_and_learns_as_before(run, fails, workplace, corpus, checkpoint,
                                                       data):
  argv = ['export', '--checkpoint', checkpoint, '--output_dir', 'out']
  assert run(*argv) == (0, 'out\n', '')
  assert 'out: it holds a checkpoint' in fails(*argv)
  scores = []
  for name in checkpoint, 'out':
    code, _, err = run('score', '--checkpoint', name, '--input', corpus, '--output', 'scores.jsonl')
    assert code == 0, err
    scores.append((workplace / 'scores.jsonl').read_text())
  assert scores[0] == scores[1]
  code, _, err = run('finetune', '--data', data, '--checkpoint', 'out', '--output_dir', 'tuned',
                     *SMALL_STEPS)
  assert code == 0, err
  assert run('generate', '--checkpoint', 'tuned', '--tools', 'calculator', '--prompt', 'a',
             '--gin.GenerationConfig.max_tokens=2')[0] == 0


def test_finetune_without_calls_learns_the_texts_alone(run, workplace, data, checkpoint):
  record = json.loads((workplace / data).read_text()) | {'calls': []}
  (workplace / 'plain.jsonl').write_text(json.dumps(record) + '\n')
  losses = []
  for name, more in ('without', ['--without_calls']), ('plain', []), ('with', []):
    argv = ['finetune', '--data', 'plain.jsonl' if name == 'plain' else data,
            '--checkpoint', checkpoint, '--output_dir', name, *more, *SMALL_STEPS]
    code, _, err = run(*argv)
    assert code == 0, err
    lines = (workplace / name / 'metrics.jsonl').read_text().splitlines()
    losses.append([json.loads(line)['loss'] for line in lines])
  assert losses[0] == losses[1] != losses[2]


def test_finetune_writes_a_checkpoint_that_generates(run, workplace, data, checkpoint):
  argv = ['finetune', '--data', data, '--checkpoint', checkpoint, '--output_dir', 'tuned']
  code, out, err = run(*argv, *SMALL_STEPS)
  assert code == 0, err
  assert out.startswith('Trained 2 steps: ') and out.endswith('The checkpoint is in tuned.\n')
  assert 'FinetuneConfig.steps = 2\n' in (workplace / 'tuned/config.gin').read_text()
  assert len((workplace / 'tuned/metrics.jsonl').read_text().splitlines()) == 2
  code, out, err = run('generate', '--checkpoint', 'tuned', '--tools', 'calculator',
                       '--prompt', 'a', '--gin.GenerationConfig.max_tokens=3')
  assert code == 0 and out.startswith('a'), err


@pytest.mark.parametrize('name, message', [
  ('nothing', "unknown file, folder or corpus 'nothing'"),
  ('unfinished', 'unfinished is not the output folder of a finished annotation run'),
  ('empty', 'empty holds no text with a call'),
])
def test_finetune_refuses_bad_data(fails, workplace, checkpoint, name, message):
  (workplace / 'unfinished/merged').mkdir(parents=True)
  (workplace / 'empty/merged').mkdir(parents=True)
  (workplace / 'empty/merged/.COMPLETED').write_text('0')
  assert message in fails('finetune', '--data', name, '--checkpoint', checkpoint,
                          '--output_dir', 'tuned')
  assert not (workplace / 'tuned').exists()


def test_real_model_annotates_in_a_process_of_its_own(workplace, corpus, smollm2_path):
  done = run_process(*annotate(corpus, smollm2_path))
  assert done.returncode == 0, done.stderr
  assert '| Calculator | 2 | 2 | 2 | 2 | ' in done.stdout
  assert [*(workplace / 'run/merged').glob('*/.COMPLETED')]


def test_half_a_character_is_refused_and_the_folder_stays_free(fails, run, workplace, corpus,
                                                              checkpoint):
  (workplace / 'half.jsonl').write_text('{"text": "fine"}\n{"text": "\\ud800 1 2 3"}\n')
  assert 'half.jsonl:2: half a surrogate' in fails(*annotate('half.jsonl', checkpoint))
  assert 'half.jsonl:2: half a surrogate' in fails(
      'score', '--checkpoint', checkpoint, '--input', 'half.jsonl', '--output', 'out.jsonl')
  assert '--prompt: the text is not UTF-8' in fails(
      'generate', '--checkpoint', checkpoint, '--tools', 'calculator', '--prompt', '\udcff')
  assert 'must be a single token' in fails(
      *annotate(corpus, checkpoint, "--gin.CallSyntax.start='<API>'"))
  assert run(*annotate(corpus, checkpoint))[0] == 0


def test_score_does_not_overwrite_what_it_reads(fails, workplace, corpus, checkpoint):
  before = (workplace / corpus).read_bytes()
  assert 'choose another --output' in fails(
      'score', '--checkpoint', checkpoint, '--input', corpus, '--output', corpus)
  assert (workplace / corpus).read_bytes() == before


def test_finetune_refuses_records_of_wrong_types(fails, workplace, checkpoint):
  (workplace / 'c.jsonl').write_text('{"id": "a", "text": null, "calls": []}\n')
  assert 'c.jsonl:1: not an AnnotatedDocument record (text is None)' in fails(
      'finetune', '--data', 'c.jsonl', '--checkpoint', checkpoint, '--output_dir', 'o')


@pytest.mark.parametrize(('argv', 'message'), [
  (['plan', '--mesh', '-1,8,1', '--model', 'none'], 'required'),
  (['plan', '--mesh', '-2,8,1', '--model', 'gptj_6b', '--topology', 'v5e-8', '--step', 'train',
    '--batch', '1', '--length', '8'], "'-2,8,1' must have positive sizes"),
  (['call', 'calculator', '--date', '-3'], "'-3' is not a date"),
])
def test_values_may_begin_with_a_minus(capsys, argv, message):
  assert cli.main(argv) == 2
  assert message in capsys.readouterr().err


def test_a_second_adapter_is_refused_where_one_is_used(capsys):
  assert cli.main(['generate', '--checkpoint', 'c', '--adapter', 'a', '--adapter', 'b']) == 2
  err = capsys.readouterr().err
  assert '--adapter occurs twice' in err and len(err.splitlines()) == 1


@pytest.mark.parametrize('command', [
  'fetch', 'call', 'score', 'generate', 'annotate', 'view', 'finetune', 'evaluate', 'export',
  'compress', 'plan'])
def test_every_option_takes_a_value_that_begins_with_a_minus(command):
  parser = cli.Parser(prog=command, allow_abbrev=False)
  importlib.import_module(f'toolformer_jax.commands.{command}').add_arguments(parser)
  options = re.findall(r'^  (--\w+)(?: [A-Z]| {\w)', parser.format_help(), re.MULTILINE)
  assert options or command == 'fetch'
  for option in options:
    try:
      cli.parse(parser, [option, '-3,1'])
    except UserError as error:  # others are required, or the value is refused
      assert 'expected' not in str(error) and 'unrecognized' not in str(error)


NOISY_TOOLS = """
import os, subprocess, sys, time
print('on import')

def noisy(argument):
  print('by print')
  sys.__stdout__.write('by the original stream')
  sys.__stdout__.flush()
  os.write(1, b'by the descriptor')
  subprocess.run(['echo', 'by a child process'])
  return argument.upper()

def hang(argument):
  print('called', file=sys.stderr, flush=True)
  time.sleep(1000)
"""


def start_call(workplace, tool, *options, **streams):
  """Starts `toolformer call` with a tool of NOISY_TOOLS."""
  (workplace / 'noisy_tools.py').write_text(NOISY_TOOLS)
  binding = f"--gin.CustomToolsConfig.functions={{'Tool': 'noisy_tools:{tool}'}}"
  return subprocess.Popen([sys.executable, '-m', 'toolformer_jax', 'call', 'tool', 'cat', binding,
                           *options], text=True, cwd=workplace, **streams)


def test_what_a_tool_prints_is_not_on_standard_output(workplace):
  call = start_call(workplace, 'noisy', stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  out, err = call.communicate()
  assert (call.returncode, out) == (0, 'CAT\n')
  for text in ('on import', 'by print', 'by the original stream', 'by the descriptor',
               'by a child process'):
    assert text in err


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_callback_of_native_code_is_not_lost(number, code):
  program = ('import os, sys, time, weakref\nfrom toolformer_jax import cli\n'
             'class Array:\n  pass\n'
             'def work():\n'
             '  array = Array()\n'
             f'  held = weakref.ref(array, lambda _: os.kill(os.getpid(), {int(number)}))\n'
             '  del array\n'
             '  time.sleep(30)\n'
             'sys.exit(cli.guarded(work, resumable=False))\n')
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                        timeout=60)
  assert done.returncode == code and 'Traceback' not in done.stderr


@pytest.mark.parametrize('number, code', [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_wait_misses_is_not_lost(number, code):
  # The signal interrupts the thread that it is sent to, and not the main thread's wait. So it is as
  # if it had come just before that wait.
  program = ('import signal, sys, threading\nfrom toolformer_jax import cli\n'
             'def send():\n'
             f'  signal.pthread_kill(threading.get_ident(), {int(number)})\n'
             'def work():\n'
             '  threading.Timer(0.2, send).start()\n'
             '  threading.Event().wait()\n'
             'sys.exit(cli.guarded(work, resumable=False))\n')
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                        timeout=60)
  assert done.returncode == code and 'Traceback' not in done.stderr


@pytest.mark.parametrize('number, code, message', [
  (signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'terminated')])
def test_a_signal_ends_a_tool_call(workplace, number, code, message):
  call = start_call(workplace, 'hang', '--gin.ExecutorConfig.time_limit_s=900.0',
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  while 'called' not in call.stderr.readline():
    assert call.poll() is None
  call.send_signal(number)
  out, err = call.communicate(timeout=60)
  assert (call.returncode, out, err.strip()) == (code, '', message)


def test_sigterm_ends_the_server_of_a_tool_that_hangs(workplace):
  pytest.importorskip('mcp', reason='the package mcp is not installed')
  rogue = pathlib.Path(__file__).parent / 'tools' / 'mcp_rogue.py'
  call = subprocess.Popen(
      [sys.executable, '-m', 'toolformer_jax', 'call', 'announce_and_hang', str(workplace / 'pid'),
       '--gin.CustomToolsConfig.mcp={"announce_and_hang": '
       f'"{sys.executable} {rogue} tame"}}'], stderr=subprocess.PIPE, text=True)
  while not (workplace / 'pid').exists():
    assert call.poll() is None
    time.sleep(0.05)
  call.send_signal(signal.SIGTERM)
  assert call.wait(timeout=60) == 143
  with pytest.raises(ProcessLookupError):
    os.kill(int((workplace / 'pid').read_text()), 0)


def test_a_closed_standard_output_is_no_traceback(workplace):
  command = [sys.executable, '-m', 'toolformer_jax', 'call', 'calculator', '1 + 1']
  done = subprocess.run(['sh', '-c', 'exec "$@" >&-', 'sh', *command], stderr=subprocess.PIPE,
                        text=True)
  assert done.returncode == 0 and 'Traceback' not in done.stderr


def test_libtpu_is_silent_where_there_is_no_tpu():
  pytest.importorskip('libtpu', reason='libtpu is not installed; see `make aot`')
  code = ("from toolformer_jax import cli\n"
          "def work():\n  import jax\n  print(jax.devices()[0].platform)\n"
          "cli.guarded(work, resumable=False)")
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert done.stderr == ''
