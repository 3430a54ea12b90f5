"""The templates of Wikipedia that stand for words, and what a reader sees in their place.

Templates that put nothing into the prose (citations, maintenance, navigation) become ''. One that
is not known here becomes None: what it would show cannot be told.
"""

import re
from collections.abc import Callable, Sequence

from toolformer_jax.data.wikitext_holes import ASIDE
from toolformer_jax.data.wikitext_measures import about, convert, money

_TEXTS = {
  '!': '|', '%': '%', "'": "'", "'s": "'s", '=': '=', '–': '–', '—': '—', '•': ' • ', '·': ' · ',
  '...': '...', '€': '€', '£': '£', 'apostrophe': "'", 'ayin': 'ʿ', 'br': ' ', 'break': ' ',
  'bull': ' • ', 'bullet': ' • ', 'crlf': ' ', 'dagger': '†', 'dash': '–', 'deg': '°',
  'degree': '°', 'dot': ' · ', 'ellipsis': '...', 'em dash': '—', 'emdash': '—', 'en dash': '–',
  'endash': '–', 'euro': '€', 'flat': '♭', 'hair space': ' ', 'hairsp': ' ', 'hamza': 'ʾ',
  'hsp': ' ', 'hyphen': '-', 'long dash': '—', 'lsquo': '‘', 'mdash': '—', 'mdashb': ' — ',
  'middot': ' · ',
  'minus': '−', 'natural': '♮', 'nb10': ' ', 'nbhyph': '-', 'nbs': ' ', 'nbsp': ' ',
  'ndash': '–', 'nnbsp': ' ', 'non breaking hyphen': '-', 'okina': 'ʻ', 'pipe': '|', 'pound': '£',
  'pprime': '″', 'prime': '′', 'rsquo': '’', 'sect': '§', 'sharp': '♯', 'shy': '', 'snd': ' – ',
  'space': ' ', 'spaced en dash': ' – ', 'spaced ndash': ' – ', 'spaces': ' ', 'spnd': ' – ',
  'thin space': ' ', 'thinsp': ' ', 'thinspace': ' ', 'times': '×', 'wbr': '', 'zwj': '',
  'zwnj': '', 'zwsp': '',
}

# The text is one of the positional arguments.
_ARGUMENTS = {
  'abbr': 0, 'abbreviation': 0, 'angbr': 0, 'angle bracket': 0, 'anglebracket': 0, 'b': 0,
  'big': 0, 'blockquote': 0, 'bold': 0, 'boldital': 0, 'code': 0, 'color': -1, 'colour': -1,
  'cquote': 0, 'em': 0, 'flag': 0, 'flagcountry': 0, 'flagu': 0, 'font color': -1, 'gloss': 0,
  'i': 0, 'ic': 0, 'ill': 0, 'ill-wd': 0, 'illm': 0, 'interlanguage link': 0,
  'interlanguage link multi': 0, 'italic correction': 0, 'italics': 0, 'kbd': 0, 'keypress': 0,
  'lang': 1, 'langx': 1, 'large': 0, 'larger': 0, 'link-interwiki': 0, 'lc': 0, 'midsize': 0,
  'mono': 0, 'mvar': 0, 'nihongo': 0, 'nobold': 0, 'nobr': 0, 'noitalic': 0, 'not a typo': 0,
  'notatypo': 0, 'nowrap': 0, 'nowrap begin': 0, 'polytonic': 0, 'proper name': 0, 'resize': -1,
  'rtl-lang': 1, 'quote': 0, 'samp': 0, 'sc': 0, 'script': 1, 'sic': 0, 'small': 0,
  'smallcaps': 0, 'smaller': 0, 'strong': 0, 'sub': 0, 'tooltip': 0, 'transl': -1,
  'transliteration': -1, 'tt': 0, 'typo': 0, 'underline': 0, 'unicode': 0, 'unichar': 1, 'url': -1,
  'vanchor': 0, 'verse translation': 0, 'visible anchor': 0, 'vr': 0, 'wikt-lang': 1,
}

_SHIPS = frozenset({
  'ara', 'gts', 'hdms', 'hmas', 'hmcs', 'hmnzs', 'hms', 'hmt', 'hnlms', 'hnoms', 'hswms', 'ins',
  'jds', 'js', 'mf', 'ms', 'msc', 'mv', 'my', 'ns', 'orp', 'ps', 'rfa', 'rms', 'rrs', 'rv', 'sms',
  'ss', 'tss', 'usat', 'usav', 'uscgc', 'usns', 'uss', 'ussr', 'usrc', 'uscs',
})

_NOTHING = frozenset({
  '#tag:ref', '-', 'according to whom', 'anchor', 'anchors', 'attribution needed',
  'better source', 'better source needed', 'bsn', 'by whom', 'by whom?', 'cbignore',
  'citation needed', 'citation-needed', 'clarify', 'clarification needed', 'clarifyme', 'clear',
  'clear left', 'clear right', 'clearleft', 'clearright', 'clr', 'cn', 'contradict-inline',
  'contradictory inline', 'cref', 'cref2', 'date missing', 'dead link', 'deadlink',
  'disambiguation needed', 'disputed inline', 'disputed-inline', 'dn', 'dubious', 'efn', 'efn-la',
  'efn-lr', 'efn-ua', 'efn-ur', 'elucidate', 'example needed', 'examples', 'expand acronym',
  'fact', 'failed verification', 'featured article', 'flagdeco', 'flagicon', 'flagicon image',
  'full', 'full citation needed', 'fv', 'good article', 'how', 'how often', 'how?',
  'inconsistent', 'inline', 'jargon inline', 'jargon-inline', 'link note', 'listen', 'lopsided',
  'music note', 'need quotation', 'needs update', 'nonspecific', 'note', 'note label', 'notelist',
  'notetag', 'ntsh', 'or', 'original research inline', 'original synthesis', 'page needed',
  'page number', 'page number needed', 'pages needed', 'peacock inline', 'peacock term', 'pn',
  'pov statement', 'pov-inline', 'pov-statement', 'pp', 'primary source inline',
  'primary source-inline', 'quantify', 'r', 'ref', 'ref label', 'refn', 'request quotation', 'rp',
  'self-published inline', 'self-published source', 'sfn', 'sfnm', 'sfnp', 'short description',
  'shortcut', 'specify', 'spoken wikipedia', 'synthesis inline', 'synthesis-inline',
  'third-party inline', 'third-party-inline', 'time needed', 'timeframe', 'toc', 'toclimit',
  'undue inline', 'undue-inline', 'unreliable source', 'unreliable source?', 'update after',
  'update inline', 'update-inline', 'use american english', 'use british english',
  'use dmy dates', 'use mdy dates', 'vague', 'verification needed', 'verify credibility',
  'verify source', 'weasel inline', 'weasel-inline', 'what', 'when', 'when?', 'where', 'where?',
  'which', 'which?', 'who', 'who?', 'whom', 'whom?', 'why', 'why?', 'year needed',
  'disambiguation', 'unbalanced opinion', 'define', 'definition needed', 'over-explained',
  'lowercase', 'lowercase title', 'displaytitle', 'italic title',
})
# These show a remark: it is left out where it stands in parentheses or outside of a sentence.
_ASIDES = frozenset({
  'citation', 'coor', 'coor d', 'coor dm', 'coor dms', 'coord', 'decrease', 'doi', 'down', 'gain',
  'geo coord', 'gutenberg', 'harvard citation no brackets', 'harvcol', 'harvcolnb', 'harvnb',
  'icd10', 'icd9', 'increase', 'ipa', 'ipa all', 'ipa audio link', 'ipa link', 'ipablink', 'ipac',
  'ipalink', 'isbn', 'isbnt', 'loss', 'no change', 'nochange', 'oclc', 'pinyin', 'profit',
  'pron-en', 'pronounced', 'pronunciation', 'pronunciation needed', 'respell', 'respelling',
  'steady', 'up', 'webarchive', 'zh', 'zh-cn', 'zh-hans', 'zh-hant', 'zh-tw',
})
_NOTHING_PREFIXES = ('pp-', 'infobox', 'use ', 'defaultsort:', 'displaytitle:')
_ASIDE_PREFIXES = ('cite ', 'ipac-', 'ipa-', 'harv')
_LISTEN = frozenset({'listen', 'help', 'help·info', 'info', 'play', 'pronounced', 'pronunciation'})

# What is written above the line without being a power: the ends of ordinal numbers, titles and
# abbreviations in languages of Europe, and trade marks.
_RAISED = frozenset('''
  bis cia der do e em er ere ers es è ème ère eme gr gue hon lle lles le la
  me mes mgr mme mo mos mr mrs ms nd nda nde nds ndes no nos o os ra re rd rds res ro rs sen sm
  sr sra st ste sts ta te ter th ths tm to ve ® ™ ª º ° * † ‡
  '''.split()) | {''}


def template_text(name: str, arguments: Sequence[str], named: dict[str, str]) -> str | None:
  """Returns what a reader sees in place of a template, or None where that is not known.

  Args:
    name: of the template, as it stands.
    arguments: the texts of its positional arguments.
    named: the texts of the others, by name.
  """
  name = re.sub(r'[\s_]+', ' ', name).strip().lower().removeprefix('template:')
  if name in _TEXTS:
    return _TEXTS[name]
  if name in _NOTHING or name.startswith(_NOTHING_PREFIXES):
    return ''
  if name.startswith('lang-'):
    return arguments[0] if arguments else named.get('text')
  if name in _ARGUMENTS:
    return _argument(arguments, _ARGUMENTS[name], named)
  if name in _SHIPS:
    return _ship(name.upper(), arguments)
  if name in _FUNCTIONS:
    return _FUNCTIONS[name](arguments, named)
  if (shown := about(name, arguments) or money(name, arguments, named)) is not None:
    return shown
  if name in _ASIDES or name.startswith(_ASIDE_PREFIXES):
    return ASIDE
  function, colon, argument = name.partition(':')
  return _grouped(argument) if colon and function == 'formatnum' else None


def _argument(arguments: Sequence[str], place: int, named: dict[str, str]) -> str | None:
  return arguments[place] if -len(arguments) <= place < len(arguments) else named.get('text')


def _as_of(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  start = 'since' if named.get('since') else 'as of'
  if named.get('alt'):
    return named['alt']
  return f'{start if named.get("lc") else start.capitalize()} {_date(arguments)}'


def _date(parts: Sequence[str]) -> str:
  """Returns a date given as year, month and day; the month may be a number or a name."""
  year, month, day = [*parts, '', '', ''][:3]
  if month.isdigit() and 1 <= int(month) <= 12:
    month = _MONTHS[int(month) - 1]
  return ' '.join(part for part in (day.lstrip('0'), month, year) if part)


_MONTHS = ('January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September',
           'October', 'November', 'December')


def _ship(prefix: str, arguments: Sequence[str]) -> str | None:
  name, identifier, form = [*arguments, '', '', ''][:3]
  if not name or form:  # the third argument chooses what is shown
    return f'{prefix} {name}' if name else None
  return f'{prefix} {name} ({identifier})' if identifier else f'{prefix} {name}'


def _any_ship(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  shown = _ship(arguments[0], arguments[1:]) if len(arguments) > 1 else None
  return shown and shown.strip()


def _ship_class(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  return f'{arguments[0]}-class {arguments[1]}' if len(arguments) > 1 else None


def _number(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  return _grouped(arguments[0]) if arguments else None


def _grouped(number: str) -> str | None:
  """Returns a number with its digits in groups of three."""
  match = re.fullmatch(r'\s*([-−+]?)(\d+)(\.\d+)?\s*', number.replace(',', ''))
  return f'{match[1]}{int(match[2]):,}{match[3] or ""}' if match else None


def without_variants(wikitext: str) -> str:
  """Returns wikitext with one spelling where it gives several, such as `-{zh-cn:a;zh-tw:b}-`.

  The first spelling of the order in which they are listed here is taken, or the first one given.
  See https://www.mediawiki.org/wiki/Writing_systems/Syntax.
  """
  return _VARIANTS.sub(_variant, wikitext)


def _variant(markup: re.Match[str]) -> str:
  if markup['flags'] and set(markup['flags']) & set('HTD-'):
    return ''  # a rule for the rest of the page, or its title
  if '=>' in markup['text']:
    return markup[0]
  spellings = {one['code']: one['text'] for one in _SPELLING.finditer(markup['text'])}
  if not spellings:
    return markup['text']
  code = next((code for code in _PREFERRED if code in spellings), next(iter(spellings)))
  return spellings[code]


_VARIANTS = re.compile(r'-\{(?:(?P<flags>[A-Z;+-]*|[a-z;-]+)\|)?(?P<text>[^{}]*)\}-')
_CODE = r'(?:zh|sr|kk|ku|iu|uz|tg|gan|shi|crh|tly|ban)(?:-[a-z]+)*'
_SPELLING = re.compile(
    rf'(?:^|;)\s*(?P<code>{_CODE})\s*:\s*(?P<text>.*?)\s*(?=;\s*{_CODE}\s*:|;?\s*$)', re.DOTALL)
_PREFERRED = ('zh-hans', 'zh-cn', 'zh', 'sr-ec', 'sr-cyrl')


def superscript_text(text: str) -> str | None:
  """Returns raised letters as they are, as in 20th and Na+; None for a power, which is no text."""
  plain = re.sub(r"'{2,}|\s", '', text)
  is_read = plain.lower() in _RAISED or re.fullmatch(r'\d?[+−–-]|\[.*\]', plain)
  return text if is_read else None


def _superscript(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  return superscript_text(arguments[0]) if arguments else None


def _audio(arguments: Sequence[str], named: dict[str, str]) -> str:
  """Returns the word that a recording is linked from, unless it says no more than "listen"."""
  label = arguments[1] if len(arguments) > 1 else ''
  return '' if label.lower() in _LISTEN else label


def _harvard(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  """Returns a citation as part of a sentence, such as Smith & Jones (2000)."""
  *names, year = filter(None, arguments) if any(arguments) else ['']
  if not names or len(names) > 4:
    return None
  authors = f'{", ".join(names[:-1])} & {names[-1]}' if 1 < len(names) < 4 else names[0]
  return f'{authors if len(names) < 4 else f"{authors} et al."} ({year})'


def _joined(separator: str) -> Callable[[Sequence[str], dict[str, str]], str | None]:
  return lambda arguments, named: separator.join(arguments) or None


_FUNCTIONS = {
  'as of': _as_of, 'asof': _as_of, 'audio': _audio, 'convert': convert, 'cvt': convert,
  'formatnum': _number, 'harvard citation text': _harvard, 'harvcoltxt': _harvard,
  'harvtxt': _harvard,
  'linktext': _joined(' '), 'nts': _number, 'number table sorting': _number,
  'sclass': _ship_class, 'sclass-': _ship_class, 'sclass2': _ship_class,
  'sclass2-': _ship_class, 'ship': _any_ship, 'sortname': _joined(' '), 'sup': _superscript,
}
