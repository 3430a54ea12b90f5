"""Handles are looked up and never read as paths; files are what their content says."""

import copy
import os
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.errors import ToolError, UserError
from toolformer_jax.media.content_type import content_type
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import MediaTable

from .made_files import clip, picture, sound


@pytest.fixture
def table(tmp_path):
  names = {'a.png': picture(), 'b.wav': sound(), 'c.jpg': picture(format='JPEG'), 'd.mp4': clip()}
  for name, data in names.items():
    (tmp_path / name).write_bytes(data)
  return MediaTable.from_files([tmp_path / name for name in names])


def test_handles_count_by_kind_in_order(table):
  assert [handle for handle, _ in table] == ['image 1', 'audio 1', 'image 2', 'video 1']
  assert table.resolve('image 2').path.endswith('c.jpg')


@pytest.mark.parametrize('handle', ['image 1', ' IMAGE  1 ', 'Image\t1'])
def test_case_and_spaces_do_not_matter(table, handle):
  assert table.resolve(handle, 'image').path.endswith('a.png')


@pytest.mark.parametrize('handle', [
  'image 3', 'image 0', 'image -1', 'image 01', 'image', '', '../a.png', '/etc/passwd', 'a.png',
  'image 1/../../x', 'file:///etc/passwd', 'http://localhost/image 1', 'image 1\0', 'x' * 10**6])
def test_anything_else_is_refused_by_one_line_that_lists_the_handles(table, handle):
  with pytest.raises(ToolError) as error:
    table.resolve(handle)
  message = str(error.value)
  assert 'this document has image 1, audio 1, image 2, video 1' in message
  assert len(message) < 200 and len(message.splitlines()) == 1


@given(st.text())
def test_no_handle_opens_a_file(handle):
  with pytest.raises(ToolError, match='this document has no media'):
    MediaTable().resolve(handle)


def test_the_path_of_a_file_in_the_table_is_no_handle(table):
  for _, medium in table:
    with pytest.raises(ToolError):
      table.resolve(medium.path)


def test_another_kind_is_refused(table):
  with pytest.raises(ToolError, match='audio 1 is not of the kind image'):
    table.resolve('audio 1', 'image')


def test_a_file_that_was_changed_is_not_read(table):
  medium = table.resolve('image 1')
  with open(medium.path, 'ab') as file:
    file.write(b'more')
  for read in (medium.read_bytes, medium.check):
    with pytest.raises(OSError, match='changed'):
      read()
  os.remove(medium.path)
  for read in (medium.read_bytes, medium.check):
    with pytest.raises(OSError, match='[Nn]o such file'):
      read()


@pytest.mark.parametrize(('data', 'message'), [
  (b'hello', 'none of pictures'), (b'', 'none of'), (b'#EXTM3U\nfile:///etc/passwd\n', 'none of'),
  (b'ffconcat version 1.0\nfile /etc/passwd\n', 'none of'), (b'<svg/>', 'none of'),
  (b'\x7fELF' * 9, 'none of'), (b'%PDF-1.7', 'none of'), (b'PK\3\4' * 9, 'none of')])
@pytest.mark.parametrize('name', ['a.png', 'b.mp4', 'c.wav'])
def test_a_name_does_not_make_a_medium(tmp_path, data, message, name):
  (tmp_path / name).write_bytes(data)
  with pytest.raises(UserError, match=message) as error:
    MediaTable.from_files([tmp_path / name])
  assert name in str(error.value) and len(str(error.value).splitlines()) == 1


def test_files_that_are_missing_folders_or_too_large_are_refused(tmp_path):
  (tmp_path / 'a.png').write_bytes(picture())
  for path in (tmp_path, tmp_path / 'none.png', '/dev/zero'):
    with pytest.raises(UserError, match='no such file'):
      MediaTable.from_files([path])
  with pytest.raises(UserError, match='max_bytes'):
    MediaTable.from_files([tmp_path / 'a.png'], MediaLimits(max_bytes=10))


def test_bytes_in_memory_get_names_of_their_own(tmp_path):
  table = MediaTable.from_bytes([picture(), sound(), picture()], tmp_path / 'new')
  assert [handle for handle, _ in table] == ['image 1', 'audio 1', 'image 2']
  assert len(list((tmp_path / 'new').iterdir())) == 2
  assert table.resolve('image 1').read_bytes() == picture()
  with pytest.raises(UserError, match='medium 2: its content'):
    MediaTable.from_bytes([picture(), b'text'], tmp_path)


@pytest.mark.parametrize(('format', 'codec', 'kind'), [
  ('mp4', 'mpeg4', 'video'), ('webm', 'libvpx', 'video'), ('avi', 'mpeg4', 'video'),
  ('mov', 'libx264', 'video')])
def test_containers_with_pictures_are_videos(format, codec, kind):
  assert content_type(clip(1, format, codec)).kind == kind


@pytest.mark.parametrize('format', ['PNG', 'JPEG', 'GIF', 'WEBP', 'BMP', 'TIFF'])
def test_formats_of_pictures(format):
  assert content_type(picture(format=format))[:2] == ('image', format)


def test_what_a_tool_makes_gets_the_next_handle(table, tmp_path):
  key = table.key()
  (tmp_path / 'said.wav').write_bytes(sound(0.1))
  assert table.add(tmp_path / 'said.wav') == 'audio 2'
  assert table.resolve('audio 2').path.endswith('said.wav')
  assert len(table.key()) == len(key) + 1
  assert MediaTable(table.media) == table  # but a table of the same text does not have it
  with pytest.raises(ToolError):
    MediaTable(table.media).resolve('audio 2')


def test_tables_can_be_compared_copied_and_hashed(table):
  assert copy.deepcopy(table) == table == pickle.loads(pickle.dumps(table))
  assert len({table, copy.deepcopy(table)}) == 1
