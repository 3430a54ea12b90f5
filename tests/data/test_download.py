"""Downloads against a server on this machine: whole and checked, whatever the server does."""

import errno
import hashlib
import http.server
import io
import pathlib
import re
import tarfile
import threading
import zipfile

import pytest

from toolformer_jax import cli
from toolformer_jax.data import catalogue
from toolformer_jax.data import download as downloading
from toolformer_jax.data.asset_sources import HttpFile
from toolformer_jax.data.benchmarks import BENCHMARKS, Benchmark, RemoteFile, fetch_benchmarks
from toolformer_jax.data.download import DownloadError, download, unpack
from toolformer_jax.errors import UserError

CONTENT = bytes(range(256)) * 40_000  # 10 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
  """Serves `files`; can break off, forget what ranges are, or change a file."""

  daemon_threads = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), Handler)
    self.files, self.requests = {}, []
    self.breaks = []  # after how many bytes of the next answers the connection is closed
    self.knows_ranges, self.version = True, '"1"'
    threading.Thread(target=self.serve_forever, daemon=True).start()

  def address(self, path):
    return f'http://127.0.0.1:{self.server_port}{path}'


class Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    server, wanted = self.server, self.headers.get('Range')
    server.requests.append((self.path, wanted))
    if self.path not in server.files:
      return self.send_error(404)
    content, start = server.files[self.path], 0
    if wanted and server.knows_ranges and self.headers['If-Range'] == server.version:
      start = int(re.fullmatch(r'bytes=(\d+)-', wanted)[1])
      if start >= len(content):
        return self.send_error(416)
    self.send_response(206 if start else 200)
    self.send_header('Content-Length', str(len(content) - start))
    if server.version:
      self.send_header('ETag', server.version)
    self.end_headers()
    end = start + server.breaks.pop(0) if server.breaks else None
    self.wfile.write(content[start:end])

  def log_message(self, *args):
    pass


@pytest.fixture
def server(monkeypatch):
  monkeypatch.setattr(downloading, '_WAITS_S', (0.0, 0.0, 0.0))
  server = Server()
  server.files['/file'] = CONTENT
  yield server
  server.shutdown()
  server.server_close()


def ranges(server):
  return [wanted for _, wanted in server.requests]


def test_a_file_comes_whole(server, tmp_path):
  assert download(server.address('/file'), tmp_path / 'file', SHA256) == SHA256
  assert (tmp_path / 'file').read_bytes() == CONTENT
  assert [path.name for path in tmp_path.iterdir()] == ['file']
  assert download(server.address('/file'), tmp_path / 'file', SHA256) == SHA256
  assert len(server.requests) == 1


def test_broken_transfers_go_on_where_they_broke(server, tmp_path):
  server.breaks = [3_000_000, 1_000_000, 2_000_000]
  assert download(server.address('/file'), tmp_path / 'file', SHA256) == SHA256
  assert ranges(server) == [None, 'bytes=3000000-', 'bytes=4000000-', 'bytes=6000000-']


def test_a_second_run_goes_on(server, tmp_path):
  server.breaks = [3_000_000, *[0] * 10]
  with pytest.raises(DownloadError, match=rf'{server.address("/file")}: the transfer broke off '
                                          'after 3000000 of 10240000 bytes'):
    download(server.address('/file'), tmp_path / 'file')
  server.breaks, server.requests = [], []
  assert download(server.address('/file'), tmp_path / 'file') == SHA256
  assert ranges(server) == ['bytes=3000000-']


@pytest.mark.parametrize('change', ['no ranges', 'another version', 'no version'])
def test_what_cannot_be_continued_starts_again(server, tmp_path, change):
  server.version = '' if change == 'no version' else '"1"'
  server.breaks = [3_000_000, *[0] * 10]
  with pytest.raises(DownloadError):
    download(server.address('/file'), tmp_path / 'file')
  server.breaks = []
  server.knows_ranges = change != 'no ranges'
  if change == 'another version':
    server.version, server.files['/file'] = '"2"', CONTENT[::-1]
  found = download(server.address('/file'), tmp_path / 'file')
  assert (tmp_path / 'file').read_bytes() == server.files['/file']
  assert found == hashlib.sha256(server.files['/file']).hexdigest()


def test_a_file_that_became_shorter_starts_again(server, tmp_path):
  (tmp_path / 'file.partial').write_bytes(CONTENT)
  (tmp_path / 'file.partial.version').write_text('"\\"1\\""')
  server.files['/file'] = b'short'
  download(server.address('/file'), tmp_path / 'file')
  assert (tmp_path / 'file').read_bytes() == b'short'


def test_another_content_is_refused_by_its_address(server, tmp_path):
  with pytest.raises(UserError, match=rf'{server.address("/file")} has sha256 {SHA256}, not 0000'):
    download(server.address('/file'), tmp_path / 'file', '0' * 64)
  assert not list(tmp_path.iterdir())


def test_missing_files_and_servers_are_named(server, tmp_path):
  with pytest.raises(DownloadError, match=rf'{server.address("/none")}: 404 Not Found'):
    download(server.address('/none'), tmp_path / 'file')
  assert len(server.requests) == 1  # not tried again
  address = server.address('/file')
  server.shutdown()
  server.server_close()
  with pytest.raises(DownloadError, match=f'{address}.*refused'):
    download(address, tmp_path / 'file')


def test_a_full_disk_keeps_what_arrived(server, tmp_path, monkeypatch):
  room = 2_500_000
  class Full(io.FileIO):
    def write(self, chunk):
      if self.tell() + len(chunk) > room:
        raise OSError(errno.ENOSPC, 'No space left on device')
      return super().write(chunk)
  monkeypatch.setattr(downloading, 'open', lambda path, mode: Full(path, mode), raising=False)
  monkeypatch.setitem(BENCHMARKS, 'tiny', Benchmark(
      'tiny', (RemoteFile(server.address('/file'), 'a'),), 10, 'MIT'))
  with pytest.raises(UserError, match=f'cannot write {tmp_path}.*No space left'):
    fetch_benchmarks(['tiny'], tmp_path)
  monkeypatch.undo()
  monkeypatch.setitem(BENCHMARKS, 'tiny', Benchmark(
      'tiny', (RemoteFile(server.address('/file'), 'a'),), 10, 'MIT'))
  fetch_benchmarks(['tiny'], tmp_path)
  assert ranges(server)[-1].startswith('bytes=2')
  assert (tmp_path / 'tiny' / 'a').read_bytes() == CONTENT


def zipped(names):
  packed = io.BytesIO()
  with zipfile.ZipFile(packed, 'w') as archive:
    for name in names:
      archive.writestr(name, f'content of {name}')
  return packed.getvalue()


def tarred(names, links=()):
  packed = io.BytesIO()
  with tarfile.open(fileobj=packed, mode='w:gz') as archive:
    for name, target in links:
      one = tarfile.TarInfo(name)
      one.type, one.linkname = tarfile.SYMTYPE, target
      archive.addfile(one)
    for name in names:
      content = f'content of {name}'.encode()
      one = tarfile.TarInfo(name)
      one.size = len(content)
      archive.addfile(one, io.BytesIO(content))
  return packed.getvalue()


def files_in(folder):
  return sorted(path.relative_to(folder).as_posix() for path in folder.rglob('*')
                if path.is_file())


@pytest.mark.parametrize('pack', [zipped, tarred])
def test_the_wanted_files_of_an_archive_are_unpacked(pack, tmp_path):
  (tmp_path / 'a').write_bytes(pack(['data/x.json', 'data/in/y.json', 'data/other', 'z']))
  unpack(tmp_path / 'a', tmp_path / 'out', ('data/x', 'data/in/'))
  assert files_in(tmp_path / 'out') == ['in/y.json', 'x.json']
  assert (tmp_path / 'out' / 'in' / 'y.json').read_text() == 'content of data/in/y.json'
  with pytest.raises(UserError, match='a is not the archive expected: it has no none/'):
    unpack(tmp_path / 'a', tmp_path / 'out', ('none/',))


@pytest.mark.parametrize('pack', [zipped, tarred])
@pytest.mark.parametrize('name', ['data/../../evil', '/evil', '../evil', 'data/..\\..\\evil'])
def test_paths_that_lead_out_are_refused(pack, name, tmp_path):
  (tmp_path / 'a').write_bytes(pack([name]))
  with pytest.raises(UserError, match='is not unpacked: the path .* leads out'):
    unpack(tmp_path / 'a', tmp_path / 'out', ('data/', '/', '..'))
  assert not (tmp_path / 'evil').exists() and not (tmp_path.parent / 'evil').exists()


def test_links_are_not_followed(tmp_path):
  (tmp_path / 'a').write_bytes(tarred(['data/link/evil'], [('data/link', str(tmp_path))]))
  unpack(tmp_path / 'a', tmp_path / 'out', ('data/',))
  assert not (tmp_path / 'evil').exists()
  assert not (tmp_path / 'out' / 'link').is_symlink()


@pytest.mark.parametrize('content', [b'', b'<html>', zipped(['a'])[:-30], tarred(['a'])[:-30]],
                         ids=['nothing', 'a page', 'zip', 'tar'])
def test_damaged_archives_are_refused(content, tmp_path):
  (tmp_path / 'a').write_bytes(content)
  with pytest.raises(UserError, match='a is not the archive expected'):
    unpack(tmp_path / 'a', tmp_path / 'out', ('a',))


def test_benchmarks_become_the_folders_that_evaluation_reads(server, tmp_path, monkeypatch, capsys):
  server.files['/data.zip'] = zipped(['data/TREx/P17.jsonl', 'data/relations.jsonl', 'data/BIG/x'])
  monkeypatch.setitem(BENCHMARKS, 'tiny', Benchmark('tiny', (
      RemoteFile(server.address('/file'), 'fold0/dev.csv', SHA256),
      RemoteFile(server.address('/data.zip'), '', '', ('data/relations.jsonl', 'data/TREx/'))),
      10, 'MIT'))
  fetch_benchmarks(['tiny'], tmp_path / 'D')
  folder = tmp_path / 'D' / 'tiny'
  assert files_in(folder) == ['SHA256SUMS', 'TREx/P17.jsonl', 'fold0/dev.csv', 'relations.jsonl']
  sha256 = hashlib.sha256(server.files['/data.zip']).hexdigest()
  assert (folder / 'SHA256SUMS').read_text() == f'{SHA256}  fold0/dev.csv\n{sha256}  data.zip\n'
  printed = capsys.readouterr().err
  assert f'sha256 {sha256} of {server.address("/data.zip")} was not known before' in printed
  (folder / 'fold0/dev.csv').write_text('mine')
  fetch_benchmarks(['tiny'], tmp_path / 'D')  # what is there is left as it is
  assert (folder / 'fold0/dev.csv').read_text() == 'mine' and len(server.requests) == 2
  assert [path.name for path in (tmp_path / 'D').iterdir() if path.suffix != '.lock'] == ['tiny']


def test_the_table_of_benchmarks_is_sound():
  for benchmark in BENCHMARKS.values():
    for file in benchmark.files:
      assert re.fullmatch(r'https?://\S+', file.address)
      assert re.fullmatch(r'([0-9a-f]{64})?', file.sha256)
      assert bool(file.path) != bool(file.unpacked)
  with pytest.raises(UserError, match="unknown benchmark 'svanp': did you mean svamp"):
    fetch_benchmarks(['svanp'], pathlib.Path('nowhere'))


def test_the_sums_are_those_of_the_copies_here(data_dir):
  copies = {'svamp/SVAMP.json': None, 'nq_open/NQ-open.dev.jsonl': None}
  for path in copies:
    folder, name = path.split('/')
    known, = (file.sha256 for file in BENCHMARKS[folder].files if file.path == name)
    assert hashlib.sha256((data_dir / path).read_bytes()).hexdigest() == known


def test_an_asset_on_a_web_server_goes_on_after_a_kill(server, tmp_path, monkeypatch):
  asset = catalogue.Asset('pages', 'corpus', HttpFile(server.address('/file'), 10), 'pages.json',
                          SHA256, 'MIT')
  monkeypatch.setattr(catalogue, 'CATALOGUE', {'pages': asset})
  server.breaks = [3_000_000, *[0] * 10]
  with pytest.raises(DownloadError):
    catalogue.fetch('pages', tmp_path)
  server.breaks = []
  assert catalogue.fetch('pages', tmp_path).read_bytes() == CONTENT
  assert ranges(server)[-1] == 'bytes=3000000-'
  assert sorted(path.name for path in tmp_path.iterdir()) == ['pages.json', 'pages.lock']
  other = catalogue.Asset('other', 'corpus', HttpFile(server.address('/file'), 10), 'other',
                          '0' * 64, 'MIT')
  monkeypatch.setattr(catalogue, 'CATALOGUE', {'other': other})
  with pytest.raises(UserError, match=f'sha256 {SHA256}, not 0000.*{server.address("/file")}'):
    catalogue.fetch('other', tmp_path)


def test_the_list_names_everything_with_its_address(capsys):
  assert cli.main(['fetch', '--list']) == 0
  lines = capsys.readouterr().out.splitlines()
  for name in (*catalogue.CATALOGUE, *BENCHMARKS):
    line, = (line for line in lines if line.split()[:1] == [name])
    assert 'sha256' in line or 'by the hub' in line
  assert any(line.startswith('templama') and 'sha256 unknown' in line for line in lines)


@pytest.mark.parametrize(('arguments', 'message'), [
    (['fetch'], 'what is to be fetched'),
    (['fetch', 'svamp'], 'svamp needs --output_dir D'),
    (['fetch', 'kilt', '--output_dir', 'D'], '--output_dir is for benchmarks'),
])
def test_what_is_missing_is_said(arguments, message, capsys):
  assert cli.main(arguments) == 2
  assert message in capsys.readouterr().err


def test_the_command_prints_the_folder(server, tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(BENCHMARKS, 'tiny', Benchmark(
      'tiny', (RemoteFile(server.address('/file'), 'a'),), 10, 'MIT'))
  assert cli.main(['fetch', 'tiny', '--output_dir', str(tmp_path / 'D')]) == 0
  assert capsys.readouterr().out == f'{tmp_path / "D"}\n'
