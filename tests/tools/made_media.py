"""Pictures, sounds and videos whose content is known, made by the tests."""

import io
import shutil
import wave

import numpy as np
import pytest

from toolformer_jax.media.table import MediaTable
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.speak import synthesize


def rendered(lines, size=28, width=500):
  """Returns lines of text as the bytes of a PNG; a tuple is a left and a right column."""
  image = pytest.importorskip('PIL.Image')
  draw = pytest.importorskip('PIL.ImageDraw')
  font = pytest.importorskip('PIL.ImageFont').load_default(size)
  picture = image.new('RGB', (width, 40 + 2 * size * len(lines)), 'white')
  for number, line in enumerate(lines):
    columns = (line,) if isinstance(line, str) else line
    for x, text in zip((20, width - 150), columns, strict=False):
      draw.Draw(picture).text((x, 20 + 2 * size * number), text, 'black', font=font)
  buffer = io.BytesIO()
  picture.save(buffer, 'PNG')
  return buffer.getvalue()


def synthesizer():
  """Returns the name of a program that speaks; flite is understood better."""
  found = next(filter(shutil.which, ('flite', 'espeak-ng')), None)
  if not found:
    pytest.skip('neither flite nor espeak-ng is installed')
  return found


def spoken(text):
  """Returns a text as the bytes of a WAV file."""
  return synthesize(text, synthesizer())


def silence(seconds):
  """Returns the bytes of a WAV file in which nothing is heard."""
  buffer = io.BytesIO()
  with wave.open(buffer, 'wb') as file:
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(16_000)
    file.writeframes(bytes(int(seconds * 32_000)))
  return buffer.getvalue()


def video(pictures, sound, seconds=2, rate=5):
  """Returns the bytes of a video that shows each picture, uint8 [H, W, 3], to a sound."""
  av = pytest.importorskip('av')
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format='mp4') as made, av.open(io.BytesIO(sound)) as heard:
    frames = made.add_stream('mpeg4', rate=rate)
    frames.height, frames.width = pictures[0].shape[:2]
    frames.pix_fmt = 'yuv420p'
    samples = made.add_stream('aac', rate=heard.streams.audio[0].rate)
    for picture_HWC in pictures:
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format='rgb24')
      for _ in range(seconds * rate):
        made.mux(frames.encode(frame))
    made.mux(frames.encode(None))
    for frame in heard.decode(audio=0):
      made.mux(samples.encode(frame))
    made.mux(samples.encode(None))
  return buffer.getvalue()


def context(folder, *contents):
  """Returns the context of a text with files of these contents."""
  return Context(media=MediaTable.from_bytes(contents, folder))
