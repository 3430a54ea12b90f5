"""Tells what a file is by its content, never by its name."""

import re
from typing import Literal, NamedTuple, get_args

from toolformer_jax.errors import ToolError

Kind = Literal['image', 'audio', 'video']
KINDS: tuple[Kind, ...] = get_args(Kind)
KNOWN = ('pictures (PNG, JPEG, GIF, WebP, BMP, TIFF), sound (WAV, FLAC, MP3, Ogg, M4A) and video '
         '(MP4, MOV, WebM, Matroska, AVI)')

# `hdlr` boxes of MP4 and codec ids of Matroska, which say whether there is a track of pictures.
_MP4_PICTURES = re.compile(rb'hdlr.{8}vide', re.DOTALL)
_MATROSKA_PICTURES = re.compile(rb'\x86.V_[A-Z]', re.DOTALL)
_OGG_PICTURES = re.compile(rb'\x80theora|BBCD\x00|\x01video\x00')
_BMP_HEADERS = {12, 40, 52, 56, 108, 124}  # the sizes that the second header of a BMP can have
_HEAD = 65_536


class ContentType(NamedTuple):
  """The kind of a file, and its format.

  Attributes:
    kind: 'image', 'audio' or 'video'.
    format: the name that Pillow or FFmpeg has for it.
    mime: its media type, for browsers.
  """

  kind: Kind
  format: str
  mime: str


_STARTS = (
  (b'\x89PNG\r\n\x1a\n', ContentType('image', 'PNG', 'image/png')),
  (b'\xff\xd8\xff', ContentType('image', 'JPEG', 'image/jpeg')),
  (b'GIF87a', ContentType('image', 'GIF', 'image/gif')),
  (b'GIF89a', ContentType('image', 'GIF', 'image/gif')),
  (b'II*\0', ContentType('image', 'TIFF', 'image/tiff')),
  (b'MM\0*', ContentType('image', 'TIFF', 'image/tiff')),
  (b'fLaC', ContentType('audio', 'flac', 'audio/flac')),
  (b'ID3', ContentType('audio', 'mp3', 'audio/mpeg')),
)
_RIFF = {
  b'WEBP': ContentType('image', 'WEBP', 'image/webp'),
  b'WAVE': ContentType('audio', 'wav', 'audio/wav'),
  b'AVI ': ContentType('video', 'avi', 'video/x-msvideo'),
}


def content_type(data: bytes) -> ContentType:
  """Returns the kind and format of a file with the content `data`.

  Raises:
    ToolError: it is none of the known formats.
  """
  for start, found in _STARTS:
    if data.startswith(start):
      return found
  found_type = _riff(data) or _container(data) or _mp3(data) or _bmp(data)
  if found_type is None:
    raise ToolError(f'its content is none of {KNOWN}')
  return found_type


def _riff(data: bytes) -> ContentType | None:
  return _RIFF.get(data[8:12]) if data.startswith(b'RIFF') else None


def _container(data: bytes) -> ContentType | None:
  """Returns the type of an MP4, Matroska or Ogg file: video if it has a track of pictures."""
  if data[4:8] == b'ftyp' and data[8:12] not in (b'avif', b'avis', b'heic', b'heix', b'mif1'):
    return (ContentType('video', 'mp4', 'video/mp4') if _MP4_PICTURES.search(data)
            else ContentType('audio', 'mp4', 'audio/mp4'))
  if data.startswith(b'\x1aE\xdf\xa3'):
    return (ContentType('video', 'matroska', 'video/webm')
            if _MATROSKA_PICTURES.search(data[:_HEAD])
            else ContentType('audio', 'matroska', 'audio/webm'))
  if data.startswith(b'OggS'):
    return (ContentType('video', 'ogg', 'video/ogg') if _OGG_PICTURES.search(data[:_HEAD])
            else ContentType('audio', 'ogg', 'audio/ogg'))
  return None


def _mp3(data: bytes) -> ContentType | None:
  """Returns the type of an MP3 without tags: it begins with the header of a frame of layer 3."""
  if len(data) < 4 or data[0] != 0xff or data[1] & 0xe6 != 0xe2:
    return None
  rate, sampling = data[2] >> 4, data[2] >> 2 & 3
  return ContentType('audio', 'mp3', 'audio/mpeg') if 0 < rate < 15 and sampling < 3 else None


def _bmp(data: bytes) -> ContentType | None:
  is_bmp = data.startswith(b'BM') and int.from_bytes(data[14:18], 'little') in _BMP_HEADERS
  return ContentType('image', 'BMP', 'image/bmp') if is_bmp else None
