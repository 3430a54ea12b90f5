"""Decodes files in processes of their own, which are killed at the time limit.

A process is started when one is needed, and used again: its start takes about half a second.
"""

import atexit
import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import queue
import subprocess
import sys
import threading
from typing import IO, Any, Literal, NamedTuple

import numpy as np

from toolformer_jax.errors import ToolError, UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import Medium

_PACKAGE_FOLDER = str(pathlib.Path(__file__).parents[2])
_PACKAGES = {'image': 'PIL', 'audio': 'av', 'frames': 'av'}
_START_S = 30.0  # more than the start takes on any machine


class Decoded(NamedTuple):
  """Arrays, and what else is known of them."""

  fields: dict[str, Any]
  arrays: list[np.ndarray]


def decode(medium: Medium, what: Literal['image', 'audio', 'frames'], limits: MediaLimits,
           every_s: float | None = None) -> Decoded:
  """Decodes a file in another process.

  Args:
    medium: the file.
    what: to get from it.
    limits: what it may cost.
    every_s: for frames: the time between two of them; None for one of each scene.

  Raises:
    ToolError: the file cannot be decoded, or is beyond a limit.
    OSError: the file is gone or has changed, or no process can be started.
    TimeoutError: decoding took longer than `decoding_s`.
    UserError: the package that decodes is not installed.
  """
  if not importlib.util.find_spec(_PACKAGES[what]):
    raise UserError('decoding media needs packages: pip install "toolformer_jax[media]"')
  data = medium.read_bytes(limits)
  request = {'what': what, 'every_s': every_s, 'limits': dataclasses.asdict(limits),
             'bytes': len(data)}
  with _CORES:
    process = take_process(limits.decoding_bytes)
    decoded = process.exchange(request, data, limits.decoding_s)
    give_back(process)
  if 'error' in decoded.fields:
    raise ToolError(decoded.fields['error'])
  return decoded


class DecodingProcess:
  """A process that decodes, with a limit of its memory."""

  def __init__(self, memory_bytes: int):
    """Starts it and waits until it is ready: its start is not part of the decoding time."""
    self.memory_bytes = memory_bytes
    path = os.pathsep.join(filter(None, [_PACKAGE_FOLDER, os.environ.get('PYTHONPATH')]))
    environment = {**os.environ, 'PYTHONPATH': path, 'OPENBLAS_NUM_THREADS': '1',
                   'OMP_NUM_THREADS': '1'}
    # -P: modules in the working directory are not those that decode.
    self._process = subprocess.Popen(
        [sys.executable, '-P', '-m', 'toolformer_jax.media.decoding_worker', str(memory_bytes)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=environment)
    self.exchange(None, b'', _START_S)

  def exchange(self, request: dict[str, Any] | None, data: bytes, limit_s: float) -> Decoded:
    """Sends a request, unless it is None, and returns the next answer.

    Raises:
      ToolError: the process ended while it decoded.
      OSError: it did not start.
      TimeoutError: there was no answer within `limit_s`. The process is killed.
    """
    late = threading.Event()
    clock = threading.Timer(limit_s, self._end_late, [late])
    clock.daemon = True
    clock.start()
    try:
      return self._exchange(request, data)
    except (OSError, ValueError) as error:
      self.kill()
      if late.is_set():
        raise TimeoutError(f'not decoded within {limit_s:g} seconds') from error
      if request is None:  # no fault of a file
        raise OSError('the process that decodes files does not start') from error
      raise ToolError('the process that decodes the file ended') from error
    except BaseException:  # an interrupt leaves half an answer in the pipe
      self.kill()
      raise
    finally:
      clock.cancel()
      clock.join()  # otherwise it may still kill the process, which has the next file by then

  def _exchange(self, request: dict[str, Any] | None, data: bytes) -> Decoded:
    requests, answers = self._process.stdin, self._process.stdout
    assert requests and answers
    if request:
      requests.write(json.dumps(request).encode() + b'\n' + data)
      requests.flush()
    fields = json.loads(answers.readline())
    return Decoded(fields, [_read_array(answers, one) for one in fields.pop('arrays')])

  def _end_late(self, late: threading.Event) -> None:
    late.set()
    self.kill()

  def is_alive(self) -> bool:
    """Tells whether the process can get another request."""
    return self._process.poll() is None

  @property
  def pid(self) -> int:
    """The number of the process."""
    return self._process.pid

  def kill(self) -> None:
    """Kills the process, whatever it does."""
    self._process.kill()
    self._process.wait()


_CORES = threading.BoundedSemaphore(os.cpu_count() or 1)  # how many may decode at the same time
_IDLE: 'queue.SimpleQueue[DecodingProcess]' = queue.SimpleQueue()


def take_process(memory_bytes: int) -> DecodingProcess:
  """Returns an idle process with this limit of memory, or a new one."""
  try:
    while True:
      process = _IDLE.get_nowait()
      if process.memory_bytes == memory_bytes and process.is_alive():
        return process
      process.kill()
  except queue.Empty:
    return DecodingProcess(memory_bytes)


def give_back(process: DecodingProcess) -> None:
  """Keeps a process for the next file."""
  _IDLE.put(process)


@atexit.register
def end_processes() -> None:
  """Ends the processes that wait for work."""
  while not _IDLE.empty():
    _IDLE.get().kill()


def _read_array(answers: IO[bytes], described: dict[str, Any]) -> np.ndarray:
  dtype = np.dtype(described['dtype'])
  size = math.prod(described['shape']) * dtype.itemsize
  data = answers.read(size)
  if len(data) != size:
    raise ValueError('the answer is not complete')
  return np.frombuffer(data, dtype).reshape(described['shape'])
