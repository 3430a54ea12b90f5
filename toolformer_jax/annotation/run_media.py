"""The media of an annotation run: files in the folder of its corpus, which the run names."""

from collections.abc import Iterable, Iterator

from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_absolute_path, reason


def note_media_folder(documents: Iterable[Document], folder: RunFolder) -> Iterator[Document]:
  """Yields documents, and notes in the run's folder where their media are.

  Records have paths relative to the folder of the corpus, so that it can be moved.

  Raises:
    UserError: the media are in several folders.
  """
  noted = None
  for document in documents:
    for medium in document.media:
      if noted is None:
        noted = medium.folder
        folder.keep_media_folder(str(as_absolute_path(noted)) if noted else '')
      elif noted != medium.folder:
        raise UserError(f'{document.id}: the media of a run must be in one folder, not in '
                        f'{noted or "."} and {medium.folder or "."}')
    yield document


def check_media(folder: RunFolder) -> None:
  """Checks that the media of a run are those that its texts were read with.

  Raises:
    UserError: a file is missing, or has changed.
  """
  if not folder.has_media:
    return
  for document in folder.documents():
    for medium in document.media:
      try:
        medium.check()
      except OSError as error:
        raise UserError(
            f'{medium.file}: {reason(error)}; results depend on it: choose another --output_dir; '
            f'if the corpus was moved, write its folder to {folder.path / "media_folder"}'
        ) from error
