"""Puts the media of a caller's texts into their contexts."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from toolformer_jax.errors import UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import MediaTable
from toolformer_jax.tools.base import Context

# Files of one text, or a list of files for each of several texts.
Media = Sequence[str | os.PathLike] | Sequence[Sequence[str | os.PathLike]]


def contexts_with_media(texts: Sequence[str], contexts: Sequence[Context] | None, media: Media,
                        limits: MediaLimits) -> Sequence[Context] | None:
  """Returns the contexts of `texts` with their media; without media, `contexts` as they are.

  Args:
    texts: the texts.
    contexts: of each text; None if it has none.
    media: files of the only text, or a list of files for each text.
    limits: what a medium may have.

  Raises:
    UserError: `media` is no list, there are not as many lists as texts, or a file is no medium.
  """
  if not media:
    return contexts
  if isinstance(media, str | os.PathLike):
    raise UserError(f'media must be a list of files, [{os.fspath(media)!r}]')
  lists: Any = [media] if isinstance(media[0], str | os.PathLike) else media
  contexts = contexts or [Context()] * len(texts)
  if not len(lists) == len(texts) == len(contexts):
    raise UserError(f'generate needs a list of media for each prompt: {len(texts)}, not '
                    f'{len(lists)}')
  return [dataclasses.replace(context, media=MediaTable.from_files(files, limits))
          for context, files in zip(contexts, lists, strict=True)]
