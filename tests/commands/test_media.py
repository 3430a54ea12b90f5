"""`--media` gives commands the files that calls name."""

import json

import pytest

from toolformer_jax import cli

from ..media.made_files import picture, sound

TOOLS = '''
def look(argument, context):
  medium = context.media.resolve(argument)
  return f'{medium.kind} of {len(medium.read_bytes())} bytes'
'''


@pytest.fixture
def workplace(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'eyes.py').write_text(TOOLS)
  (tmp_path / 'a.png').write_bytes(picture())
  (tmp_path / 'b.wav').write_bytes(sound(0.1))
  return tmp_path


def run(capsys, *arguments):
  code = cli.main(list(arguments))
  return code, *capsys.readouterr()


def test_call_takes_media_by_handle(workplace, capsys):
  both = ('--media', 'a.png', '--media', 'b.wav')
  for handle, data in (('image 1', picture()), ('Audio 1', sound(0.1))):
    code, out, _ = run(capsys, 'call', 'eyes.py:look', handle, *both)
    assert (code or 0, out) == (0, f'{handle.lower().split()[0]} of {len(data)} bytes\n')
  code, out, err = run(capsys, 'call', 'eyes.py:look', 'image 2', *both)
  assert (code, out) == (2, '') and 'no image 2: this document has image 1, audio 1' in err
  code, out, err = run(capsys, 'call', 'eyes.py:look', 'a.png')
  assert code == 2 and 'this document has no media' in err


@pytest.mark.parametrize(('file', 'message'), [
  ('none.png', 'there is no such file'), ('eyes.py', 'its content is none of'),
  ('http://localhost/a.png', 'neither a path')])
def test_a_file_that_is_no_medium_is_an_error_of_one_line(workplace, capsys, file, message):
  code, out, err = run(capsys, 'call', 'calculator', '1 + 1', '--media', file)
  assert (code, out) == (2, '') and message in err and file in err
  assert len(err.strip().splitlines()) == 1


def test_limits_of_media_are_settings(workplace, capsys):
  code, _, err = run(capsys, 'call', 'eyes.py:look', 'image 1', '--media', 'a.png',
                     '--gin.MediaLimits.max_bytes=10')
  assert code == 2 and 'MediaLimits.max_bytes' in err


def test_media_of_a_file_of_prompts_are_in_its_lines(workplace, capsys):
  (workplace / 'p.jsonl').write_text(json.dumps({'text': 'a', 'media': ['../a.png']}) + '\n')
  arguments = ('generate', '--checkpoint', 'smollm2-135m', '--tools', 'calculator', '--input',
               'p.jsonl')
  code, _, err = run(capsys, *arguments)
  assert code == 2 and 'p.jsonl:1: media' in err
  code, _, err = run(capsys, *arguments, '--media', 'a.png')
  assert code == 2 and '--media belongs to --prompt' in err
