"""The templates of Wikipedia that stand for words, and what a reader sees in their place.

Templates that put nothing into the prose (citations, maintenance, navigation) become ''. One that
is not known here becomes None: what it would show cannot be told.
"""

import re
from collections.abc import Callable, Sequence

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
  'lang': -1, 'langx': -1, 'large': 0, 'larger': 0, 'link-interwiki': 0, 'lc': 0, 'midsize': 0,
  'mono': 0, 'mvar': 0, 'nihongo': 0, 'nobold': 0, 'nobr': 0, 'noitalic': 0, 'not a typo': 0,
  'notatypo': 0, 'nowrap': 0, 'nowrap begin': 0, 'polytonic': 0, 'proper name': 0, 'resize': -1,
  'rtl-lang': -1, 'quote': 0, 'samp': 0, 'sc': 0, 'script': -1, 'sic': 0, 'small': 0,
  'smallcaps': 0, 'smaller': 0, 'strong': 0, 'sub': 0, 'tooltip': 0, 'transl': -1,
  'transliteration': -1, 'tt': 0, 'typo': 0, 'underline': 0, 'unicode': 0, 'unichar': 1, 'url': -1,
  'vanchor': 0, 'verse translation': 0, 'visible anchor': 0, 'vr': 0, 'wikt-lang': -1,
}

_PREFIXES = {  # before their first argument
  'aud': 'A$', 'brl': 'R$', 'c.': 'c. ', 'ca': 'c. ', 'ca.': 'c. ', 'cad': 'C$', 'circa': 'c. ',
  'cny': 'CN¥', 'eur': '€', 'fl': 'fl. ', 'fl.': 'fl. ', 'floruit': 'fl. ', 'gbp': '£',
  'hkd': 'HK$', 'inr': '₹', 'indian rupee': '₹', 'indian rupees': '₹', 'jpy': 'JP¥', 'krw': '₩',
  'nzd': 'NZ$', 'php': '₱', 'r.': 'r. ', 'reign': 'r. ', 'rupee': '₹', 'inrconvert': '₹',
  'us$': 'US$', 'usd': 'US$', '¥': '¥', '$': '$', 'a$': 'A$',
}
_SHIPS = frozenset({
  'ara', 'gts', 'hdms', 'hmas', 'hmcs', 'hmnzs', 'hms', 'hmt', 'hnlms', 'hnoms', 'hswms', 'ins',
  'jds', 'js', 'mf', 'ms', 'msc', 'mv', 'my', 'ns', 'orp', 'ps', 'rfa', 'rms', 'rrs', 'rv', 'sms',
  'ss', 'tss', 'usat', 'usav', 'uscgc', 'usns', 'uss', 'ussr', 'usrc', 'uscs',
})

_NOTHING = frozenset({
  '#tag:ref', '-', 'according to whom', 'anchor', 'anchors', 'attribution needed', 'audio',
  'better source', 'better source needed', 'bsn', 'by whom', 'by whom?', 'cbignore',
  'citation needed', 'citation-needed', 'clarify', 'clarification needed', 'clarifyme', 'clear',
  'clear left', 'clear right', 'clearleft', 'clearright', 'clr', 'cn', 'contradict-inline',
  'contradictory inline', 'coord', 'cref', 'cref2', 'date missing', 'decrease', 'dead link',
  'deadlink', 'disambiguation needed', 'disputed inline', 'disputed-inline', 'dn', 'dubious',
  'efn', 'efn-la', 'efn-lr', 'efn-ua', 'efn-ur', 'elucidate', 'example needed', 'examples',
  'expand acronym', 'fact', 'failed verification', 'featured article', 'flagdeco', 'flagicon',
  'flagicon image', 'full', 'full citation needed', 'fv', 'good article', 'gutenberg', 'harvcol',
  'harvcolnb', 'harvnb', 'harvtxt', 'how', 'how often', 'how?', 'icd9', 'icd10', 'inconsistent',
  'increase', 'inline', 'ipa', 'ipa audio link', 'ipa link', 'ipablink', 'ipalink', 'isbn',
  'jargon inline', 'jargon-inline', 'link note', 'listen', 'lopsided', 'music note',
  'need quotation', 'needs update', 'nonspecific', 'note', 'note label', 'notelist', 'notetag',
  'ntsh', 'or', 'original research inline', 'original synthesis', 'page needed', 'page number',
  'page number needed', 'pages needed', 'peacock inline', 'peacock term', 'pn', 'pov statement',
  'pov-inline', 'pov-statement', 'pp', 'primary source inline', 'primary source-inline',
  'pronunciation', 'quantify', 'r', 'ref', 'ref label', 'refn', 'request quotation', 'respell',
  'rp', 'self-published inline', 'self-published source', 'sfn', 'sfnm', 'sfnp',
  'short description', 'shortcut', 'specify', 'spoken wikipedia', 'synthesis inline',
  'synthesis-inline', 'third-party inline', 'third-party-inline', 'time needed', 'timeframe',
  'toc', 'toclimit', 'undue inline', 'undue-inline', 'unreliable source', 'unreliable source?',
  'update after', 'update inline', 'update-inline', 'use american english', 'use british english',
  'use dmy dates', 'use mdy dates', 'vague', 'verification needed', 'verify credibility',
  'verify source', 'webarchive', 'weasel inline', 'weasel-inline', 'what', 'when', 'when?',
  'where', 'where?', 'which', 'which?', 'who', 'who?', 'whom', 'whom?', 'why', 'why?',
  'year needed', 'zh', 'zh-tw', 'citation', 'disambiguation', 'unbalanced opinion', 'define',
  'definition needed', 'over-explained',
})
_NOTHING_PREFIXES = ('cite ', 'ipac-', 'ipa-', 'pp-', 'infobox', 'use ', 'defaultsort:', 'harv')

_RANGES = {
  'to': ' to ', '-': '–', '–': '–', 'to(-)': '–', 'and': ' and ', 'and(-)': ' and ', '&': ' and ',
  'or': ' or ', 'or(-)': ' or ', 'x': ' × ', '×': ' × ', 'by': ' by ', 'xx': ' × ', '+/-': ' ± ',
  '±': ' ± ', 'to about': ' to about ', 'upto': ' up to ',
}
_UNITS = {
  'C': '°C', 'F': '°F', 'km2': 'km²', 'm2': 'm²', 'cm2': 'cm²', 'sqmi': 'sq mi', 'sqft': 'sq ft',
  'sqkm': 'km²', 'sqm': 'm²', 'm3': 'm³', 'km3': 'km³', 'cm3': 'cm³', 'cuft': 'cu ft',
  'mph': 'mph', 'kph': 'km/h', 'acre': 'acres', 'foot': 'ft', 'feet': 'ft', 'inch': 'in',
  'inches': 'in', 'mile': 'miles', 'pound': 'pounds', 'metre': 'metres', 'USgal': 'US gal',
  'impgal': 'imp gal', 'LT': 'long tons', 'ST': 'short tons', 't': 'tonnes', 'nmi': 'nmi',
}
_NUMBER = re.compile(r'[-+−]?[\d,]*\.?\d+(?:/\d+)?')


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
    name = 'lang'
  if name in _ARGUMENTS:
    return arguments[_ARGUMENTS[name]] if arguments else None
  if name in _PREFIXES:
    return _PREFIXES[name] + ' – '.join(arguments) if arguments else None
  if name in _SHIPS:
    return _ship(name.upper(), arguments)
  if name in _FUNCTIONS:
    return _FUNCTIONS[name](arguments, named)
  function, colon, argument = name.partition(':')
  return _grouped(argument) if colon and function == 'formatnum' else None


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


def _convert(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  """Returns a measure in the unit that its source states, without the conversion."""
  rest, text = list(arguments), ''
  while len(rest) >= 2 and rest[1] in _RANGES:
    text += rest[0] + _RANGES[rest[1]]
    rest = rest[2:]
  if len(rest) < 2:
    return None
  space = '-' if named.get('adj') == 'on' else ' '
  text += f'{rest[0]}{space}{_UNITS.get(rest[1], rest[1]) if space == " " else rest[1]}'
  rest = rest[2:]
  # A measure of two units, such as 6 ft 8 in. A number at the end is a number of digits.
  while len(rest) >= 2 and _NUMBER.fullmatch(rest[0]) and not _NUMBER.fullmatch(rest[1]):
    text += f' {rest[0]} {_UNITS.get(rest[1], rest[1])}'
    rest = rest[2:]
  return text


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


def _superscript(arguments: Sequence[str], named: dict[str, str]) -> str | None:
  """Returns letters as they are, as in 20th; a power is no text."""
  return arguments[0] if arguments and arguments[0].isalpha() else None


def _joined(separator: str) -> Callable[[Sequence[str], dict[str, str]], str | None]:
  return lambda arguments, named: separator.join(arguments) or None


_FUNCTIONS = {
  'as of': _as_of, 'asof': _as_of, 'convert': _convert, 'cvt': _convert, 'formatnum': _number,
  'linktext': _joined(' '), 'nts': _number, 'number table sorting': _number,
  'sclass': _ship_class, 'sclass-': _ship_class, 'sclass2': _ship_class,
  'sclass2-': _ship_class, 'ship': _any_ship, 'sortname': _joined(' '), 'sup': _superscript,
}
