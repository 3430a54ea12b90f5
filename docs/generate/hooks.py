"""Hooks of MkDocs: pages that are generated, and files of the repository that pages link to.

A file outside of docs/ has the same path on the site as in the repository. Markdown and pictures
are taken as they are; of any other file a page shows the text.
"""

import logging
import pathlib
import posixpath
import re
import sys
from collections.abc import Iterator

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = pathlib.Path(__file__).parents[2]
_log = logging.getLogger('mkdocs.hooks')
sys.path[:0] = [str(REPOSITORY), str(pathlib.Path(__file__).parent)]

import api  # noqa: E402
import commands  # noqa: E402
import notebooks  # noqa: E402
import settings  # noqa: E402

_GENERATED = {'reference/api.md': api.page, 'reference/commands.md': commands.page,
              'reference/settings.md': settings.page}
_PAGES = ('CHANGELOG.md', 'CONTRIBUTING.md', 'benchmarks/RESULTS.md')
_LINK = re.compile(r'(\]\()(?!https?:|mailto:|#)([^)#\s]+)')
_AS_THEY_ARE = ('.md', '.png', '.svg')
# What a browser loads by itself.
_LOADED = re.compile(r'<(?:script|img|link|iframe)\b[^>]*\s(?:src|href)="((?:https?:)?//[^"]+)"')
_LANGUAGES = {'.gin': 'python', '.py': 'python', '.sh': 'bash', '.yaml': 'yaml', '.json': 'json'}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
  """Adds the reports to the navigation, under their titles."""
  results, = (section['Results'] for section in config.nav if 'Results' in section)
  for report in reversed(_reports()):
    title = report.read_text('utf-8').partition('\n')[0].lstrip('# ')
    results.insert(1, {title: report.relative_to(REPOSITORY).as_posix()})
  return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the generated pages, the reports, and the files of the repository that pages link to."""
  generated = {uri: make() for uri, make in _GENERATED.items()} | notebooks.pages()
  for uri, content in generated.items():
    files.append(File.generated(config, uri, content=content))
  waiting = [REPOSITORY / name for name in _PAGES] + _reports()
  waiting += [target for page in (REPOSITORY / 'docs').rglob('*.md') for target in linked(page)]
  waiting += [target for uri, content in generated.items()
              for target in _targets(content, posixpath.dirname(f'docs/{uri}'))]
  while waiting:
    path = waiting.pop()
    uri = site_uri(path.relative_to(REPOSITORY).as_posix())
    if not files.get_file_from_path(uri):
      files.append(_file(config, uri, path))
      if path.suffix == '.md':
        waiting += linked(path)
  return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
  """Lets links lead to where files are on the site."""
  here = posixpath.dirname(page.file.src_uri)
  folder = posixpath.dirname(repository_path(page.file.src_uri))
  def moved(match: re.Match) -> str:
    target = site_uri(posixpath.normpath(posixpath.join(folder, match[2])))
    return f'{match[1]}{posixpath.relpath(target, here or ".")}'
  return _LINK.sub(moved, markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
  """Warns of pages that load something from elsewhere; the build fails on warnings."""
  for address in _LOADED.findall(output):
    _log.warning('%s loads %s', page.file.src_uri, address)
  return output


def site_uri(path: str) -> str:
  """Returns the place on the site of a file of the repository."""
  if path.startswith('docs/'):
    return path.removeprefix('docs/')
  if path.endswith('.ipynb'):
    return path.replace('.ipynb', '.md')
  return path if path.endswith(_AS_THEY_ARE) else f'{path}.md'


def repository_path(uri: str) -> str:
  """Returns where in the repository a page comes from, or would stand."""
  return uri if (REPOSITORY / uri).exists() else f'docs/{uri}'


def linked(page: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the files outside of docs/ that a page of the repository links to."""
  return _targets(page.read_text('utf-8'), page.parent.relative_to(REPOSITORY).as_posix())


def _targets(markdown: str, folder: str) -> Iterator[pathlib.Path]:
  for _, link in _LINK.findall(markdown):
    path = posixpath.normpath(posixpath.join(folder, link))
    if not path.startswith('docs/') and (REPOSITORY / path).is_file():
      yield REPOSITORY / path


def _reports() -> list[pathlib.Path]:
  return sorted((REPOSITORY / 'experiments' / 'reports').glob('*/report.md'))


def _file(config: MkDocsConfig, uri: str, path: pathlib.Path) -> File:
  """Returns the file of the site for a file of the repository."""
  if path.name.endswith(_AS_THEY_ARE):
    return File.generated(config, uri, abs_src_path=str(path))
  name = path.relative_to(REPOSITORY).as_posix()
  language = _LANGUAGES.get(path.suffix, 'text')
  content = (f'---\nsearch:\n  exclude: true\n---\n# {name}\n\n'
             f'````{language}\n{path.read_text("utf-8")}\n````\n')
  return File.generated(config, uri, content=content)
