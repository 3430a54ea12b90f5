"""The pages of the tutorials, from the notebooks in colab/.

`make notebooks` leaves executed copies in build/notebooks; where there is one of the same cells,
the page shows its outputs and pictures.
"""

import html
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

_REPOSITORY = pathlib.Path(__file__).parents[2]
_BADGE = re.compile(r'\[!\[[^\]]*\]\([^)]+\)\]\((https://colab[^)]+/github/([^)]+))\)')
# A tutorial that a notebook links to, and a file of the repository.
_TUTORIAL = re.compile(r'https://colab\.research\.google\.com/github/[\w-]+/[\w-]+/blob/main/colab/'
                       r'(\w+)\.ipynb')
_FILE = re.compile(r'https://github\.com/[\w-]+/toolformer_jax/blob/main/')
_COLOURS = re.compile(r'\x1b\[[\d;]*m')


def pages() -> dict[str, str]:
  """Returns every tutorial in Markdown, by its place on the site."""
  return {f'colab/{path.stem}.md': page(path)
          for path in sorted((_REPOSITORY / 'colab').glob('*.ipynb'))}


def page(path: pathlib.Path) -> str:
  """Returns a notebook in Markdown."""
  notebook = _executed(path) or _read(path)
  return '\n\n'.join(_cell(cell) for cell in notebook['cells']) + '\n'


def _read(path: pathlib.Path) -> Mapping[str, Any]:
  return json.loads(path.read_text('utf-8'))


def _executed(path: pathlib.Path) -> Mapping[str, Any] | None:
  """Returns the executed copy of a notebook, if there is one that has the same cells."""
  copy = _REPOSITORY / 'build' / 'notebooks' / path.name
  if not copy.is_file():
    return None
  executed = _read(copy)
  same = [cell['source'] for cell in executed['cells']] == [
      cell['source'] for cell in _read(path)['cells']]
  return executed if same else None


def _cell(cell: Mapping[str, Any]) -> str:
  """Returns a cell, with its outputs if it has any."""
  if cell['cell_type'] == 'markdown':
    return '\n'.join(_for_the_site(line) for line in ''.join(cell['source']).split('\n'))
  code = f'```python\n{"".join(cell["source"])}\n```'
  return '\n\n'.join(filter(None, [code, *map(_output, cell['outputs'])]))


def _for_the_site(line: str) -> str:
  """Returns a line without a badge, whose picture is elsewhere, and with links within the site."""
  if line.startswith('[!['):
    return _BADGE.sub(r'[Open in Colab](\1) · [View on GitHub](https://github.com/\2)', line)
  return _FILE.sub('../../', _TUTORIAL.sub(r'../../colab/\1.ipynb', line))


def _output(output: Mapping[str, Any]) -> str:
  """Returns what a cell has shown, or printed to standard output; '' for the rest."""
  data = output.get('data', {})
  if 'image/png' in data:
    return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
  if 'text/markdown' in data:
    return ''.join(data['text/markdown'])
  printed = output.get('text', '') if output.get('name') != 'stderr' else ''
  text = _COLOURS.sub('', ''.join(printed or data.get('text/plain', ''))).strip('\n')
  return f'<pre class="output">{html.escape(text)}</pre>' if text.strip() else ''
