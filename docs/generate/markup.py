"""Text as Markdown."""

import re


def escaped(text: str) -> str:
  """Returns text without what Markdown would take for markup, except for code in backticks."""
  parts = text.split('`')
  parts[::2] = [re.sub(r'([<>*_{}\[\]])', r'\\\1', part) for part in parts[::2]]
  return '`'.join(parts)
