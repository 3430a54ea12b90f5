"""Tables in Markdown."""

from collections.abc import Sequence

import tabulate


def markdown_table(rows: Sequence[Sequence[object]]) -> str:
  """Returns a table in Markdown. The first row is the header."""
  header, *body = [[' '.join(str(cell).split()).replace('|', '\\|') for cell in row]
                   for row in rows]
  # Cells are neither parsed as numbers nor padded.
  return tabulate.tabulate(body, header, tablefmt=_FORMAT, disable_numparse=True)


def _line(cells: Sequence[str], *_: object) -> str:
  return f'| {" | ".join(cell.strip() for cell in cells)} |'


_FORMAT = tabulate.TableFormat(
    lineabove=None, linebelowheader=lambda widths, aligns: _line(['---'] * len(widths)),
    linebetweenrows=None, linebelow=None, headerrow=_line, datarow=_line, padding=0,
    with_header_hide=None)
