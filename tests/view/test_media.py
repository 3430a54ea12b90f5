"""The page of a text shows its media, which are served by handle and never by path."""

import html
import re

import pytest

from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.data.records import Document
from toolformer_jax.media.table import MediaTable
from toolformer_jax.view.data import LiveRun
from toolformer_jax.view.pages import CONTENT_SECURITY_POLICY
from toolformer_jax.view.server import respond, respond_medium

from ..media.made_files import picture, sound


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / 'corpus'
  folder.mkdir()
  (folder / 'a.png').write_bytes(picture())
  (folder / 'b.wav').write_bytes(sound(0.1))
  (tmp_path / 'secret.png').write_bytes(picture(color='blue'))
  return folder


@pytest.fixture
def live_run(folder, tmp_path, write_run, scored):
  media = MediaTable.from_files([folder / 'a.png', folder / 'b.wav']).media
  documents = [Document('a & b', 'One (image 1) two.', media=media), Document('c', 'Four five.')]
  path = write_run(tmp_path / 'run', [documents],
                   [scored('a & b', 2, 1.5), scored('c', 2, 1.5)], {'Calculator': 0.5})
  return LiveRun(path)


def test_media_stand_beside_the_calls_of_their_text(live_run):
  status, page = respond(live_run, 'localhost', '/')
  assert status == 200
  assert re.findall(r'<figcaption[^>]*>(.*?)</figcaption>', page) == ['image 1', 'audio 1']
  addresses = [html.unescape(found) for found in re.findall(r'src="(/media[^"]*)"', page)]
  answers = [respond_medium(live_run, 'localhost', address) for address in addresses]
  assert answers == [(200, 'image/png', picture()), (200, 'audio/wav', sound(0.1))]
  assert "img-src 'self' data:; media-src 'self'" in CONTENT_SECURITY_POLICY


@pytest.mark.parametrize('target', [
  '/media?', '/media?text=c&handle=image+1', '/media?text=none&handle=image+1',
  '/media?text=a+%26+b&handle=../secret.png', '/media?text=a+%26+b&handle=image+2',
  '/media?text=a+%26+b&handle=%2Fetc%2Fpasswd', '/media?text=a+%26+b', '/media?handle=image+1',
  '/media?text=../secret.png&handle=image+1', '/media?' + 'a=b&' * 1000,
  '/media/../secret.png?text=c', '/media?text=a+%26+b&handle=a.png'])
def test_nothing_but_handles_of_the_text_is_served(live_run, target):
  status, media_type, body = respond_medium(live_run, 'localhost', target)
  assert (status, media_type) == (404, 'text/plain; charset=utf-8')
  assert b'PNG' not in body and b'root:' not in body


def test_another_host_gets_nothing(live_run):
  address = '/media?text=a+%26+b&handle=image+1'
  assert respond_medium(live_run, 'localhost:80', address)[0] == 200
  assert respond_medium(live_run, 'evil.example', address)[0] == 403


def test_a_file_that_has_changed_is_not_served(live_run, folder):
  (folder / 'a.png').write_bytes(picture(color='green'))
  status, _, body = respond_medium(live_run, 'localhost', '/media?text=a+%26+b&handle=image+1')
  assert status == 404 and b'changed' in body


def test_relative_paths_are_found_in_the_folder_of_the_corpus(folder, tmp_path, write_run, scored):
  whole = MediaTable.from_files([folder / 'a.png']).media[0]
  relative = type(whole)(whole.kind, 'a.png', whole.sha256, str(folder))
  path = write_run(tmp_path / 'run', [[Document('a', 'One two.', media=(relative,))]],
                   [scored('a', 2, 1.5)], {'Calculator': 0.5})
  with RunFolder(path, {'tools': {'Calculator': {'tau_s': 0.1, 'k': 5, 'm': 5, 'tau_f': 0.5}}},
                 {}) as run:
    run.keep_media_folder(str(folder))
  assert respond_medium(LiveRun(path), 'localhost', '/media?text=a&handle=image+1') == (
      200, 'image/png', picture())
