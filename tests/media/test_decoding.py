"""Files are decoded in another process: bombs, broken and endless files cost one call."""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from toolformer_jax.errors import ToolError
from toolformer_jax.media import process
from toolformer_jax.media.audio import decode_audio
from toolformer_jax.media.decoding_worker import SAMPLE_RATE
from toolformer_jax.media.image import decode_image, normalize, resize, resize_and_crop
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import Medium, read_medium
from toolformer_jax.media.video import decode_frames

from .made_files import clip, picture, sound, timed_clip, turned_clip

Image = pytest.importorskip('PIL.Image')
pytest.importorskip('av')


@pytest.fixture
def medium(tmp_path):
  """Returns a function from bytes to a medium."""
  def make(data):
    path = tmp_path / 'file'
    path.write_bytes(data)
    return read_medium(path)
  return make


def test_a_picture_is_what_pillow_reads(medium):
  pixels_HWC = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels_HWC).save(buffer, 'PNG')
  np.testing.assert_array_equal(decode_image(medium(buffer.getvalue())), pixels_HWC)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_stand_upright(medium, orientation):
  """The upper left corner of the upright picture is where EXIF says that it is."""
  stored_HW = np.zeros((2, 3), np.uint8)
  corner = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (-1, 0), 7: (-1, -1),
            8: (0, -1)}[orientation]
  stored_HW[corner] = 255
  exif = Image.Exif()
  exif[0x0112] = orientation
  buffer = io.BytesIO()
  Image.fromarray(stored_HW).save(buffer, 'PNG', exif=exif)
  upright_HWC = decode_image(medium(buffer.getvalue()))
  assert upright_HWC.shape == ((2, 3, 3) if orientation < 5 else (3, 2, 3))
  assert upright_HWC[0, 0].tolist() == [255] * 3 and upright_HWC.sum() == 3 * 255


@pytest.mark.parametrize(('mode', 'color', 'expected'), [
  ('L', 7, [7, 7, 7]), ('1', 1, [255] * 3), ('RGBA', (9, 8, 7, 255), [9, 8, 7]),
  ('RGBA', (9, 8, 7, 0), [255] * 3), ('LA', (5, 0), [255] * 3), ('I;16', 0x1234, [0x12] * 3)])
def test_modes_become_rgb_on_white(medium, mode, color, expected):
  buffer = io.BytesIO()
  Image.new(mode, (2, 2), color).save(buffer, 'PNG')
  assert decode_image(medium(buffer.getvalue()))[1, 1].tolist() == expected


def test_resize_crop_and_normalize():
  image_HWC = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)
  assert resize(image_HWC, 10, 20).shape == (10, 20, 3)
  np.testing.assert_array_equal(resize_and_crop(image_HWC, 30), image_HWC[:, 10:40])
  normal_HWC = normalize(image_HWC, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
  np.testing.assert_allclose(normal_HWC, image_HWC / 127.5 * 2 - 2, atol=1e-5)
  assert normal_HWC.dtype == np.float32


@pytest.mark.parametrize('shape', [(30, 50), (51, 30), (12, 12), (500, 90), (1, 40), (200, 7)])
def test_the_middle_of_a_picture_is_that_of_the_whole_resized_one(shape):
  """Up to rounding: Pillow rounds between the two directions, in an order of its own."""
  image_HWC = resize(np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8), *shape)
  size = 24
  share = size / min(shape)
  height, width = (max(size, round(side * share)) for side in shape)
  top, left = (height - size) // 2, (width - size) // 2
  whole_HWC = resize(image_HWC, height, width)
  np.testing.assert_allclose(
      resize_and_crop(image_HWC, size).astype(int),
      whole_HWC[top:top + size, left:left + size].astype(int), atol=2)


def test_a_very_long_picture_takes_little_memory():
  """Whole, it would have 36 GB when its shorter side is scaled to 224 pixels."""
  program = """
import resource
import numpy as np
from toolformer_jax.media.image import resize_and_crop
resource.setrlimit(resource.RLIMIT_AS, (2_000_000_000,) * 2)
for shape in ((1, 240_000, 3), (240_000, 1, 3)):
  assert resize_and_crop(np.full(shape, 7, np.uint8), 224).tolist() == [[[7] * 3] * 224] * 224
"""
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True,
                        env={**os.environ, 'OPENBLAS_NUM_THREADS': '1'})
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('channels', [1, 2])
def test_sound_is_mono_at_16_khz(medium, channels):
  samples_T = decode_audio(medium(sound(1.0, channels)))
  assert samples_T.dtype == np.float32 and abs(len(samples_T) - SAMPLE_RATE) < 50
  spectrum = np.abs(np.fft.rfft(samples_T[:SAMPLE_RATE - 50]))
  assert abs(int(spectrum.argmax()) - 440) <= 2
  assert np.abs(samples_T).max() == pytest.approx(16_000 / 32_768, rel=0.05)


def test_frames_by_time_and_by_scene(medium):
  video = medium(clip(4))
  assert [frame.time_s for frame in decode_frames(video, every_s=0.5)] == pytest.approx(
      [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5])
  scenes = decode_frames(video)
  assert [frame.time_s for frame in scenes] == pytest.approx([0, 1, 2, 3])
  assert [bool(frame.image_HWC.mean() > 127) for frame in scenes] == [False, True, False, True]
  assert scenes[0].image_HWC.shape == (48, 64, 3)
  small = decode_frames(video, MediaLimits(max_frames=2, max_frame_side=32), every_s=0.5)
  assert [frame.image_HWC.shape for frame in small] == [(24, 32, 3)] * 2


@pytest.mark.parametrize(('quarters', 'shape', 'white'), [
  (0, (48, 64), np.s_[:, :24]), (1, (64, 48), np.s_[:24]), (2, (48, 64), np.s_[:, -24:]),
  (3, (64, 48), np.s_[-24:])])
def test_frames_stand_upright(medium, quarters, shape, white):
  """What is at the left of the stored frame is at the top after a quarter turn clockwise."""
  image_HWC = decode_frames(medium(turned_clip(quarters)))[0].image_HWC
  assert image_HWC.shape == (*shape, 3)
  assert image_HWC[white].mean() > 240 and image_HWC.mean() < 140


@pytest.mark.parametrize('first_s', [0, 100])
def test_frames_by_time_after_a_late_start_and_a_gap(medium, first_s):
  """Frames of 10 in a second, of which 0.5 to 2.5 s are missing."""
  seconds = [first_s + tenth / 10 for tenth in range(40) if not 5 <= tenth < 25]
  video = medium(timed_clip(seconds))
  assert [frame.time_s - first_s for frame in decode_frames(video, every_s=0.3)] == pytest.approx(
      [0, 0.3, 2.5, 2.7, 3.0, 3.3, 3.6, 3.9])


def test_a_video_without_sound_is_no_sound(medium):
  with pytest.raises(ToolError, match='no sound'):
    decode_audio(medium(clip(1)))


def png(width, height, rows):
  """Returns a PNG that claims a size and holds `rows` of zeros."""
  def chunk(name, data):
    return struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
  header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
  body = zlib.compress(bytes((width * 3 + 1) * rows), 9)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', body) + chunk(b'IEND', b'')


def test_a_decompression_bomb_is_refused_by_its_size(medium):
  bomb = png(60_000, 60_000, 100)
  assert len(bomb) < 100_000
  begin = time.perf_counter()
  with pytest.raises(ToolError, match='60000 x 60000 pixels, more than'):
    decode_image(medium(bomb))
  assert time.perf_counter() - begin < 20


def test_a_bomb_below_the_limit_of_pixels_meets_that_of_memory(medium):
  bomb = png(20_000, 20_000, 20_000)  # 1.2 GB
  limits = MediaLimits(max_pixels=10**9, decoding_bytes=900_000_000, decoding_s=60)
  with pytest.raises(ToolError, match='memory'):
    decode_image(medium(bomb), limits)
  assert decode_image(medium(picture()), limits).shape == (20, 40, 3)


def test_broken_files_are_refused(medium):
  for data, decode in ((picture(400, 400)[:-200], decode_image), (clip()[:800], decode_frames),
                       (b'fLaC' + bytes(100), decode_audio), (b'RIFF    WAVE', decode_audio)):
    with pytest.raises(ToolError):
      decode(medium(data))


def test_damaged_files_end_no_run(medium):
  """Any change of a byte gives a picture, sound or frames, or a ToolError."""
  rng = np.random.default_rng(0)
  for data, decode in ((picture(format='JPEG'), decode_image), (clip(1), decode_frames),
                       (sound(0.05), decode_audio)):
    for _ in range(10):
      damaged = bytearray(data)
      damaged[rng.integers(16, len(data))] = rng.integers(256)
      try:
        decode(medium(bytes(damaged)))
      except ToolError as error:
        assert len(str(error).splitlines()) == 1


def test_long_sounds_and_videos_are_refused(medium):
  limits = MediaLimits(max_seconds=1.5)
  for data, decode in ((sound(2.0), decode_audio), (clip(3), decode_frames)):
    with pytest.raises(ToolError, match='longer than 1.5 seconds'):
      decode(medium(data), limits)


def test_a_video_that_lies_about_its_length_is_refused(medium):
  """The frames are counted too, where the header names no length."""
  data = clip(3, 'matroska')
  assert data.count(b'\x44\x89\x88') == 1
  stripped = data.replace(b'\x44\x89\x88', b'\xec\x89\x88')  # the duration becomes void
  with pytest.raises(ToolError, match='longer than 1.5 seconds'):
    decode_frames(medium(stripped), MediaLimits(max_seconds=1.5), every_s=0.1)


def test_a_decoder_that_does_not_end_is_killed(medium, monkeypatch):
  """A process that stops answering is killed at the limit, and the next file has another one."""
  file = medium(picture())
  decode_image(file)
  stuck = process.take_process(MediaLimits().decoding_bytes)
  os.kill(stuck.pid, 19)  # SIGSTOP: it is as if decoding had no end
  process.give_back(stuck)
  begin = time.perf_counter()
  with pytest.raises(TimeoutError, match='0.5 seconds'):
    decode_image(file, MediaLimits(decoding_s=0.5))
  assert time.perf_counter() - begin < 5
  assert not pathlib.Path(f'/proc/{stuck.pid}').exists()
  assert decode_image(file).shape == (20, 40, 3)


def test_a_process_that_does_not_start_is_no_fault_of_the_file(monkeypatch):
  """The failure does not last: the same call may succeed later."""
  monkeypatch.setattr(sys, 'executable', shutil.which('false'))
  with pytest.raises(OSError, match='does not start') as error:
    process.DecodingProcess(10**9)
  assert not isinstance(error.value, TimeoutError)


def test_a_process_that_decodes_does_not_outlive_its_parent_for_long(medium):
  """The parent, which would kill it at the time limit, was killed."""
  file = medium(picture())
  program = """
import time
from toolformer_jax.media import decoding_worker
decoding_worker._DECODERS['image'] = lambda *_: time.sleep(60)
decoding_worker.main()
"""
  worker = subprocess.Popen([sys.executable, '-c', program, str(10**10)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE)
  worker.stdout.readline()  # it is ready
  data = file.read_bytes()
  limits = dataclasses.asdict(MediaLimits(decoding_s=0.1))
  request = {'what': 'image', 'every_s': None, 'limits': limits, 'bytes': len(data)}
  worker.stdin.write(json.dumps(request).encode() + b'\n' + data)
  worker.stdin.flush()
  assert worker.wait(20) == -signal.SIGALRM
  worker.stdin.close()
  worker.stdout.close()


def test_a_process_decodes_many_files_and_does_not_load_jax(medium):
  file = medium(picture())
  pids = set()
  for _ in range(5):
    decode_image(file)
    idle = process.take_process(MediaLimits().decoding_bytes)
    pids.add(idle.pid)
    process.give_back(idle)
  assert len(pids) == 1
  maps = pathlib.Path(f'/proc/{pids.pop()}/maps').read_text()
  assert 'numpy' in maps and 'jaxlib' not in maps


def test_a_playlist_is_no_medium_whatever_it_is_called(tmp_path):
  """FFmpeg would open the files that a playlist names; none of its formats is guessed."""
  secret = tmp_path / 'secret.wav'
  secret.write_bytes(sound())
  playlist = tmp_path / 'a.mp4'
  playlist.write_bytes(b'#EXTM3U\n#EXTINF:1,\n' + str(secret).encode())
  forged = Medium('video', str(playlist), hashlib.sha256(
      playlist.read_bytes()).hexdigest())
  with pytest.raises(ToolError, match='none of'):
    decode_audio(forged)
