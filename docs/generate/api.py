"""The page of the public functions and classes, for mkdocstrings to fill."""

import inspect

import toolformer_jax


def page() -> str:
  """Returns the page in Markdown: every name of `toolformer_jax.__all__`."""
  found = {name: getattr(toolformer_jax, name) for name in toolformer_jax.__all__}
  functions = [name for name, value in found.items() if inspect.isfunction(value)]
  settings = [name for name in found if name.endswith('Config')]
  others = [name for name in found if name not in (*functions, *settings)]
  text = ['# Functions and classes', '',
          'All names are attributes of `toolformer_jax`. Examples are in [the Python API]'
          '(../api.md); every setting has its default and the value of the paper in '
          '[Settings](settings.md).']
  for title, names in (('Functions', functions), ('Classes', others), ('Settings', settings)):
    text += ['', f'## {title}']
    text += [f'\n::: {found[name].__module__}.{name}' for name in names]
  return '\n'.join(text) + '\n'
