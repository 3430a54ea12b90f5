"""Writes NAME.ipynb from each NAME.py of this folder (jupytext's percent format).

    .venv/bin/python colab/write_notebooks.py

Notebooks have no outputs, and cells are numbered, so that the same source gives the same file.
"""

import pathlib

import jupytext
import nbformat

FOLDER = pathlib.Path(__file__).parent
SOURCES = [path for path in sorted(FOLDER.glob('*.py')) if path != pathlib.Path(__file__)]


def notebook(source: pathlib.Path) -> str:
  """Returns the notebook of a source, as JSON."""
  made = jupytext.read(source)
  for number, cell in enumerate(made.cells):
    cell.id = f'{source.stem}-{number}'
  del made.metadata['jupytext']
  nbformat.validate(made)
  return nbformat.writes(made) + '\n'


if __name__ == '__main__':
  for source in SOURCES:
    source.with_suffix('.ipynb').write_text(notebook(source), 'utf-8')
