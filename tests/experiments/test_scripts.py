"""Every script says how it is used, and reports wrong input as the commands do."""

import json
import pathlib
import runpy
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / 'experiments'
SCRIPTS = [path for path in sorted(FOLDER.glob('*.py')) if '__main__' in path.read_text('utf-8')]


@pytest.fixture
def run(experiment, monkeypatch, capsys):
  """Runs a script as `python experiments/NAME.py` does; returns exit code, output and error."""
  def run(path, *argv):
    monkeypatch.setattr(sys, 'argv', [str(path), *map(str, argv)])
    with pytest.raises(SystemExit) as end:
      runpy.run_path(str(path), run_name='__main__')
    return end.value.code, *capsys.readouterr()
  return run


def test_scripts_are_found():
  assert len(SCRIPTS) > 20 and {'web_posts', 'gsm8k_oracle'} <= {path.stem for path in SCRIPTS}


def test_a_training_that_was_killed_has_the_metrics_of_one_that_was_not(experiment):
  def metrics(resumed):
    first = {'step': 1, 'loss': 2.0, 'step_s': 3.0, 'step_bytes': 9}
    second = {'step': 2, 'loss': 1.5, 'step_s': 1.0} | ({'step_bytes': 9} if resumed else {})
    return '\n'.join(map(json.dumps, (first, second))).encode()
  comparable = experiment('survive_kills').comparable
  assert comparable(metrics(True)) == comparable(metrics(False))
  assert comparable(metrics(True)) != comparable(metrics(True).replace(b'1.5', b'1.6'))


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_help(run, path):
  code, out, err = run(path, '--help')
  assert (code, err) == (0, '') and out.startswith(f'usage: {path.name} ')


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda path: path.stem)
def test_a_wrong_option_is_an_error_of_one_line(run, path):
  code, out, err = run(path, '--no_such_option')
  assert (code, out) == (2, '')
  line, = err.splitlines()
  assert line.startswith('error: ')


@pytest.mark.parametrize(('name', 'argv', 'message'), [
  ('web_posts', ['--posts', 'nowhere.jsonl', '--output', 'out'], 'there is no file nowhere.jsonl'),
  ('contamination', ['--evaluation', 'a=binary'], 'cannot read binary'),
  ('contamination', ['--evaluation', 'a=nowhere'], 'nowhere: No such file'),
  ('contamination', ['--evaluation', 'a=text', '--run', 'nowhere'], "corpus 'nowhere'"),
  ('search_recall', ['--wikipedia', 'text', '--xquad', 'text'], 'not in the format of SQuAD'),
  ('language_tools', ['--flores', 'nowhere'], 'No such file'),
  ('gsm8k_oracle', ['--data', 'text'], 'text:1: not JSON'),
  ('gsm8k_oracle', ['--data', 'empty'], 'has no problem that can be annotated'),
  ('survive_kills', ['--corpus', 'nowhere.jsonl', '--output_dir', 'out'], 'there is no file'),
  ('plan_paper_models', ['--output', 'out', '--models', 'gptj'], 'did you mean gptj_6b'),
])
def test_wrong_input_is_an_error_of_one_line(run, tmp_path, monkeypatch, name, argv, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'binary').write_bytes(b'\xff\xfe\xff')
  (tmp_path / 'text').write_text('one two three four five')
  (tmp_path / 'empty').write_text('')
  code, _, err = run(FOLDER / f'{name}.py', *argv)
  assert code == 2 and message in err
  assert 'Traceback' not in err and len(err.splitlines()) <= 1
