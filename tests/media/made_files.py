"""Small pictures, sounds and videos, made here."""

import fractions
import io
import struct
import wave

import numpy as np
import pytest

RATE = 44_100


def picture(width=40, height=20, color='red', format='PNG', **options):
  """Returns the bytes of a picture."""
  image = pytest.importorskip('PIL.Image')
  buffer = io.BytesIO()
  image.new('RGB', (width, height), color).save(buffer, format, **options)
  return buffer.getvalue()


def sound(seconds=1.0, channels=2):
  """Returns the bytes of a WAV file: a tone of 440 Hz."""
  times_T = np.arange(int(seconds * RATE)) / RATE
  samples_T = (16_000 * np.sin(2 * np.pi * 440 * times_T)).astype('<i2')
  buffer = io.BytesIO()
  with wave.open(buffer, 'wb') as file:
    file.setnchannels(channels)
    file.setsampwidth(2)
    file.setframerate(RATE)
    file.writeframes(np.repeat(samples_T, channels).tobytes())
  return buffer.getvalue()


def turned_clip(quarters):
  """Returns the bytes of a video, 64 x 48, that is white at its left.

  Its header says that it is shown after this number of quarter turns clockwise.
  """
  av = pytest.importorskip('av')
  buffer = io.BytesIO()
  pixels_HWC = np.zeros((48, 64, 3), np.uint8)
  pixels_HWC[:, :32] = 255
  with av.open(buffer, 'w', format='mp4') as container:
    stream = container.add_stream('mpeg4', rate=5)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    for _ in range(5):
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC, format='rgb24')))
    container.mux(stream.encode(None))
  def matrix(cosine, sine):  # of the box tkhd of ISO/IEC 14496-12
    return struct.pack('>9i', cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0,
                       0, 0, 1 << 30)
  data = buffer.getvalue()
  at = data.index(matrix(1, 0), data.index(b'tkhd'))
  turned = matrix(*((1, 0), (0, 1), (-1, 0), (0, -1))[quarters])
  return data[:at] + turned + data[at + len(turned):]


def timed_clip(seconds):
  """Returns the bytes of a video of gray frames that are shown at these times, to 0.1 s."""
  av = pytest.importorskip('av')
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format='matroska') as container:
    stream = container.add_stream('mpeg4', rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    stream.codec_context.time_base = fractions.Fraction(1, 10)
    for time_s in seconds:
      frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 127, np.uint8), format='rgb24')
      frame.pts, frame.time_base = round(10 * time_s), fractions.Fraction(1, 10)
      container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  return buffer.getvalue()


def clip(seconds=3, format='mp4', codec='mpeg4', rate=10):
  """Returns the bytes of a video whose frames are black and white in turn, a second each."""
  av = pytest.importorskip('av')
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format=format) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    for number in range(seconds * rate):
      pixels_HWC = np.full((48, 64, 3), 255 * (number // rate % 2), np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_HWC, format='rgb24')))
    container.mux(stream.encode(None))
  return buffer.getvalue()
