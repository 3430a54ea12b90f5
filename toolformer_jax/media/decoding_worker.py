"""The process that decodes files, started by `process.py` as `python -m`.

It gets the content of a file and never opens one. A request is a line of JSON and the content; an
answer is a line of JSON and the bytes of the arrays.
"""

import io
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import numpy as np

from toolformer_jax.errors import ToolError
from toolformer_jax.media.content_type import content_type
from toolformer_jax.media.limits import MediaLimits

SAMPLE_RATE = 16_000  # Hz, of decoded sound
_SCENE_CHANGE = 0.12  # mean difference of the brightness of two frames, of 1
_SCENE_SIDE = 32  # pixels of the frames that are compared


def main() -> None:
  """Answers requests until there are no more; the argument is the limit of its memory in bytes."""
  _limit_memory(int(sys.argv[1]))
  requests, answers = sys.stdin.buffer, sys.stdout.buffer
  sys.stdout = sys.stderr  # what a library prints must not get between the answers
  _write(answers, {}, [])  # it is ready
  while line := requests.readline():
    request = json.loads(line)
    try:
      answer, arrays = _answer(request, requests.read(request['bytes']))
    except MemoryError:
      answer, arrays = {'error': 'decoding needs too much memory (MediaLimits.decoding_bytes)'}, []
    except ToolError as error:
      answer, arrays = {'error': str(error)}, []
    except Exception as error:  # decoders raise anything for broken files
      reason = ' '.join(f'{type(error).__name__}: {error}'.split())
      answer, arrays = {'error': f'the file cannot be decoded ({reason:.200})'}, []
    _write(answers, answer, arrays)


def _limit_memory(limit_bytes: int) -> None:
  try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
  except (ImportError, ValueError, OSError):  # no such limit here: the time limit remains
    pass


def _write(answers: IO[bytes], answer: dict[str, Any], arrays: list[np.ndarray]) -> None:
  answer['arrays'] = [{'shape': array.shape, 'dtype': array.dtype.str} for array in arrays]
  answers.write(json.dumps(answer).encode() + b'\n')
  for array in arrays:
    answers.write(np.ascontiguousarray(array).data)
  answers.flush()


def _answer(request: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
  limits = MediaLimits(**request['limits'])
  _end_after(math.ceil(limits.decoding_s) + 1)
  try:
    return _DECODERS[request['what']](data, limits, request['every_s'])
  finally:
    _end_after(0)


def _end_after(seconds: int) -> None:
  """Lets the system end this process after some seconds, or not at all if they are 0.

  The process that waits for the answer ends it earlier, unless it was killed itself.
  """
  if hasattr(signal, 'alarm'):
    signal.alarm(seconds)


def _image(data: bytes, limits: MediaLimits, _: float | None
           ) -> tuple[dict[str, Any], list[np.ndarray]]:
  from PIL import Image, ImageOps
  Image.MAX_IMAGE_PIXELS = None  # `max_pixels` takes its place
  found = content_type(data)
  _check_kind(found.kind, ('image',))
  image: Image.Image = Image.open(io.BytesIO(data), formats=[found.format])
  _check_pixels(*image.size, limits)
  image.load()
  if image.mode.startswith('I;16'):  # Pillow would cut all values above 255
    image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
  image = ImageOps.exif_transpose(image)
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  return {}, [np.asarray(image.convert('RGB'))]


def _audio(data: bytes, limits: MediaLimits, _: float | None
           ) -> tuple[dict[str, Any], list[np.ndarray]]:
  import av
  kept: list[np.ndarray] = []
  num_samples = 0
  resampler = av.AudioResampler(format='fltp', rate=SAMPLE_RATE)
  def keep(frame: Any) -> None:
    nonlocal num_samples
    for resampled in resampler.resample(frame):
      kept.append(resampled.to_ndarray().mean(0))  # FFmpeg's own mono is louder and can clip
      num_samples += len(kept[-1])
    _check_seconds(num_samples / SAMPLE_RATE, limits)
  with _container(data, limits) as container:
    if not container.streams.audio:
      raise ToolError('it has no sound')
    for frame in container.decode(container.streams.audio[0]):
      keep(frame)
  if kept:
    keep(None)  # the last samples
  if not num_samples:
    raise ToolError('it has no sound')
  return {}, [np.concatenate(kept).astype(np.float32)]


def _frames(data: bytes, limits: MediaLimits, every_s: float | None
            ) -> tuple[dict[str, Any], list[np.ndarray]]:
  """Returns the chosen frames and their times: one every `every_s`, or None for each scene."""
  times: list[float] = []
  frames: list[np.ndarray] = []
  earlier, num_steps = None, 0
  for time_s, frame in _all_frames(data, limits):
    if every_s is None:
      now = frame.to_ndarray(format='gray', width=_SCENE_SIDE, height=_SCENE_SIDE) / 255
      wanted = earlier is None or float(np.abs(now - earlier).mean()) > _SCENE_CHANGE
      earlier = now
    else:
      due_s = times[0] + num_steps * every_s if times else time_s
      wanted = time_s >= due_s
      if wanted:  # a gap may be longer than a step
        num_steps += 1 + int((time_s - due_s) // every_s)
    if wanted:
      times.append(time_s)
      frames.append(_scaled(frame, limits.max_frame_side))
    if len(frames) == limits.max_frames:
      break
  if not frames:
    raise ToolError('it has no frames')
  return {'times': times}, frames


def _all_frames(data: bytes, limits: MediaLimits) -> Iterator[tuple[float, Any]]:
  _check_kind(content_type(data).kind, ('video',))
  with _container(data, limits) as container:
    if not container.streams.video:
      raise ToolError('it has no frames')
    stream = container.streams.video[0]
    _check_pixels(stream.codec_context.width, stream.codec_context.height, limits)
    for number, frame in enumerate(container.decode(stream)):
      time_s = float(frame.time if frame.time is not None
                     else number / float(stream.average_rate or 25))
      _check_seconds(time_s, limits)
      _check_pixels(frame.width, frame.height, limits)
      yield time_s, frame


def _scaled(frame: Any, max_side: int) -> np.ndarray:
  """Returns a frame as uint8 [H, W, 3], upright, neither side longer than `max_side`."""
  share = min(1.0, max_side / max(frame.width, frame.height))
  stored_HWC = frame.to_ndarray(format='rgb24', width=max(1, round(frame.width * share)),
                                height=max(1, round(frame.height * share)))
  return np.rot90(stored_HWC, round(frame.rotation / 90))  # phones film as they are held


def _container(data: bytes, limits: MediaLimits) -> Any:
  """Opens a sound or video. Its format is told by its content: FFmpeg must not guess.

  Some of FFmpeg's formats, such as playlists, name other files, which it would open.
  """
  import av
  found = content_type(data)
  _check_kind(found.kind, ('audio', 'video'))
  container = av.open(io.BytesIO(data), 'r', format=found.format)
  if container.duration:
    _check_seconds(container.duration / av.time_base, limits)
  return container


def _check_kind(kind: str, wanted: tuple[str, ...]) -> None:
  if kind not in wanted:
    raise ToolError(f'it is of the kind {kind}, not {" or ".join(wanted)}')


def _check_pixels(width: int, height: int, limits: MediaLimits) -> None:
  if width * height > limits.max_pixels:
    raise ToolError(f'it has {width} x {height} pixels, more than {limits.max_pixels} '
                    '(MediaLimits.max_pixels)')


def _check_seconds(seconds: float, limits: MediaLimits) -> None:
  if seconds > limits.max_seconds:
    raise ToolError(f'it is longer than {limits.max_seconds:g} seconds '
                    '(MediaLimits.max_seconds)')


_Decoder = Callable[[bytes, MediaLimits, float | None], tuple[dict[str, Any], list[np.ndarray]]]
_DECODERS: dict[str, _Decoder] = {'image': _image, 'audio': _audio, 'frames': _frames}


if __name__ == '__main__':
  main()
