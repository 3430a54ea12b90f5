"""Wikitext to plain text: what a reader of the page reads in its paragraphs."""

import itertools
import re
from collections.abc import Collection

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.wikicode import Wikicode

from toolformer_jax.data.wikitext_blocks import HOLE, split_blocks
from toolformer_jax.data.wikitext_templates import template_text

_DROPPED_SECTIONS = frozenset({
  'bibliography', 'citations', 'explanatory notes', 'external links', 'footnotes',
  'further reading', 'gallery', 'notes', 'notes and references', 'primary sources', 'references',
  'references and notes', 'secondary sources', 'see also', 'sources', 'works cited',
})
_HEADING = re.compile(r'^(={2,6})([^\n]*?)\1[ \t]*$', re.MULTILINE)
# Comments, notes and magic words go before parsing, since parsing is what takes the time. No
# alternative looks beyond the next tag of its kind, so that the time is linear.
_CUT = re.compile(
    r'<!--.*?(?:-->|\Z)|<ref\b[^<>]*/>'
    r'|<ref\b[^<>]*(?<!/)>[^<]*(?:<(?!/?ref\b)[^<]*)*</ref\s*>|__[A-Z]+__', re.DOTALL)
_MARKUP = re.compile(r"[\[{<&|]|''|//|^[=*#:;-]")

_DROPPED_TAGS = frozenset({
  'gallery', 'imagemap', 'ref', 'references', 'score', 'table', 'timeline'
})
_ITEM_TAGS = frozenset({'blockquote', 'center', 'dd', 'div', 'dt', 'hr', 'li', 'p', 'poem'})
_FORMULA_TAGS = frozenset({'chem', 'graph', 'hiero', 'math', 'pre', 'source', 'syntaxhighlight'})
_SUPERSCRIPT_TAG = 'sup'

# The names of the namespaces whose links show no text, in English and other large Wikipedias. A
# dump says its own names.
FILE_NAMESPACES = frozenset({
  'archivo', 'bestand', 'berkas', 'bild', 'category', 'catégorie', 'categoria', 'categoría',
  'categorie', 'datei', 'datoteka', 'dosya', 'fájl', 'fichier', 'ficheiro', 'fil', 'file',
  'fișier', 'fitxer', 'fitxategi', 'image', 'imagem', 'imagen', 'immagine', 'kategori',
  'kategoria', 'kategorie', 'kategorija', 'kategória', 'kategoriya', 'luokka', 'media', 'mynd',
  'plik', 'slika', 'soubor', 'súbor', 'tiedosto', 'tập tin', 'thể loại', 'vaizdas', 'файл',
  'категория', 'категорія', 'датотека', 'категорија', 'картинка', 'изображение', 'зображення',
  'αρχείο', 'κατηγορία', 'ملف', 'تصنيف', 'پرونده', 'رده', 'קובץ', 'קטגוריה', 'चित्र', 'श्रेणी',
  'ไฟล์', 'หมวดหมู่', 'ファイル', 'カテゴリ', '画像', '文件', '檔案', '分类', '分類', '파일', '분류',
})
# Wikipedias that pages link to as translations of themselves.
_LANGUAGES = frozenset('''
  ab ace af ak als am an ang ar arc arz as ast av ay az ba bar be be-tarask be-x-old bg bh bi bm bn
  bo bpy br bs bug bxr ca cbk-zam cdo ce ceb ch chr chy ckb co cr crh cs csb cu cv cy da de diq dsb
  dv dz ee el eml en eo es et eu ext fa ff fi fiu-vro fj fo fr frp frr fur fy ga gag gan gd gl glk
  gn got gu gv ha hak haw he hi hif hr hsb ht hu hy ia id ie ig ik ilo io is it iu ja jbo jv ka kaa
  kab kbd kg ki kk kl km kn ko koi krc ks ksh ku kv kw ky la lad lb lbe lez lg li lij lmo ln lo lt
  ltg lv map-bms mdf mg mhr mi min mk ml mn mr mrj ms mt mwl my myv mzn na nah nap nds nds-nl ne new
  nl nn no nov nrm nso nv ny oc om or os pa pag pam pap pcd pdc pfl pi pih pl pms pnb pnt ps pt qu
  rm rmy rn ro roa-rup roa-tara ru rue rw sa sah sc scn sco sd se sg sh si simple sk sl sm sn so sq
  sr srn ss st stq su sv sw szl ta te tet tg th ti tk tl tn to tpi tr ts tt tum tw ty udm ug uk ur
  uz ve vec vep vi vls vo wa war wo wuu xal xh xmf yi yo za zea zh zh-classical zh-min-nan zh-yue zu
  '''.split())

_LEFT_OVER = re.compile(rf'{HOLE}|{{{{|}}}}|\[\[|\]\]|{{\||\|}}|</?[a-z]+[ />]|\|thumb|^[|!]')

# What dropped templates leave around the place where they stood.
_TIDYINGS = (
  (re.compile(r"'{2,}|\[\d+\]"), ''),
  (re.compile(r'\s+'), ' '),
  (re.compile(r'([(\[])[\s,;:/]+'), r'\1'),
  (re.compile(r'(?<![\s,;:/])[\s,;:/]+([)\]])'), r'\1'),
  (re.compile(r' ?(?:\(\)|\[\])'), ''),
  (re.compile(r' +([,.;:?)])(?=\s|$|[,.;:?)])'), r'\1'),
  (re.compile(r'([,;:])(?: ?[,;])+'), r'\1'),
)
_NOTE_FOLLOWS = re.compile(r'[.,;:!?)"”]\s*$')


def plain_text(wikitext: str, file_namespaces: Collection[str] = FILE_NAMESPACES) -> str:
  """Returns the prose of `wikitext`: paragraphs and `== Heading ==` lines, apart by blank lines.

  Notes, tables, images, categories and comments are dropped, and so are the sections of references
  and links. The items of a list are paragraphs. A paragraph with a formula, with markup that is
  never closed, or with a template in its sentences whose text is not known is left out whole.

  Args:
    wikitext: of a page.
    file_namespaces: the names, in lower case, of the namespaces of files and categories.

  Raises:
    TooMuchMarkup: it would take seconds to parse.
  """
  # The parser takes a null character for the end.
  kept = _without_dropped_sections(_CUT.sub('', wikitext.replace('\0', '')))
  renderer = _Renderer(frozenset(file_namespaces))
  text = '\n'.join(map(renderer.block, split_blocks(kept)))
  paragraphs = map(_tidy, re.split(r'\n\s*\n', text))
  return '\n\n'.join(part for part in paragraphs if part and not _LEFT_OVER.search(part))


def _without_dropped_sections(wikitext: str) -> str:
  kept, at, dropped_level = [], 0, None
  for heading in _HEADING.finditer(wikitext):
    if dropped_level is None:
      kept.append(wikitext[at:heading.start()])
    level = len(heading[1])
    at = heading.start()
    if dropped_level is None or level <= dropped_level:
      dropped_level = level if heading[2].strip().lower() in _DROPPED_SECTIONS else None
  return ''.join(kept) + (wikitext[at:] if dropped_level is None else '')


def _tidy(paragraph: str) -> str:
  for pattern, replacement in _TIDYINGS:
    paragraph = pattern.sub(replacement, paragraph)
  return paragraph.strip()


class _Renderer:
  """Renders parsed wikitext as text."""

  def __init__(self, file_namespaces: frozenset[str]):
    self._file_namespaces = file_namespaces

  def block(self, wikitext: str) -> str:
    """Returns the text of a block, in which a template may stand outside of the sentences."""
    if not _MARKUP.search(wikitext):
      return wikitext
    code = mwparserfromhell.parse(wikitext)
    text = ''
    for node, after in itertools.zip_longest(code.nodes, code.nodes[1:]):
      rendered = self._node(node)
      if rendered == HOLE and isinstance(node, nodes.Template):
        if _is_outside_sentences(node, text, '' if after is None else str(after)):
          rendered = ''
      text += rendered
    return '' if _is_only_templates(code) and HOLE in text else text

  def _text(self, code: Wikicode | None) -> str:
    return ''.join(map(self._node, code.nodes)) if code is not None else ''

  def _node(self, node: nodes.Node) -> str:
    match node:
      case nodes.Text():
        return node.value
      case nodes.Wikilink():
        return self._link(node)
      case nodes.ExternalLink():
        return self._text(node.title)
      case nodes.Heading():
        marks = '=' * node.level
        return f'\n\n{marks} {_tidy(self._text(node.title))} {marks}\n\n'
      case nodes.HTMLEntity():
        return node.normalize()
      case nodes.Template():
        return self._template(node)
      case nodes.Tag():
        return self._tag(node)
    return ''  # comments, and arguments of templates

  def _link(self, link: nodes.Wikilink) -> str:
    title = str(link.title).strip()
    namespace = title.partition(':')[0].strip() if ':' in title else ''
    if namespace.lower() in self._file_namespaces or namespace in _LANGUAGES:
      return ''
    return self._text(link.title if link.text is None else link.text).strip().removeprefix(':')

  def _template(self, template: nodes.Template) -> str:
    arguments = [self._text(given.value).strip() for given in template.params if not given.showkey]
    named = {str(given.name).strip(): self._text(given.value).strip()
             for given in template.params if given.showkey}
    text = template_text(self._text(template.name), arguments, named)
    return HOLE if text is None else text

  def _tag(self, tag: nodes.Tag) -> str:
    name = str(tag.tag).strip().lower()
    if name in _DROPPED_TAGS:
      return ''
    if name in _FORMULA_TAGS:
      return HOLE
    if name == 'br':
      return ' '
    contents = self._text(tag.contents)
    if name == _SUPERSCRIPT_TAG and contents.strip().isdigit():
      return HOLE  # a power
    return f'\n\n{contents}' if name in _ITEM_TAGS else contents


def _is_only_templates(code: Wikicode) -> bool:
  return all(isinstance(node, nodes.Template | nodes.Comment)
             or isinstance(node, nodes.Text) and not node.value.strip() for node in code.nodes)


def _is_outside_sentences(template: nodes.Template, before: str, after: str) -> bool:
  """Tells whether a template of which nothing is known is a box, or a note behind a sentence."""
  touches = bool(after) and not after[0].isspace()
  return ('\n' in str(template)  # a box
          or not before.strip() and touches
          or bool(_NOTE_FOLLOWS.search(before)) and before == before.rstrip() and not touches)
