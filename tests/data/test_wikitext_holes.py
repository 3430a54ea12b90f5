"""No sentence loses a word: what is not rendered vanishes outside of the sentences alone."""

import hypothesis
import pytest
from hypothesis import strategies

from toolformer_jax.data.wikitext import plain_text

# Templates of which nothing is known, formulas, and templates that show a remark.
_MISSING = ['{{Unknown}}', '{{Unknown|3}}', '{{Unknown|a=3}}', '{{Unknown\n|3\n}}',
            '{{Unknown\n|a=3\n}}', '{{plainlist|\n* one\n* two\n}}', '{{coord|52|31|N}}',
            '{{IPA|fr|x}}', '{{zh|c=北京}}', '{{increase}}', '{{harvnb|Smith|2000}}',
            '{{cite web|url=x}}', "''{{Unknown|3}}''", "'''{{Unknown|3}}'''",
            '<small>{{Unknown|3}}</small>', '{{small|{{Unknown|3}}}}', '{{lang|fr|{{Unknown}}}}',
            '{{Unknown}}{{Unknown|3}}', '10<sup>-5</sup>', '<math>a</math>', '{{{1}}}']
_missing = strategies.sampled_from(_MISSING)


@hypothesis.given(
    _missing, strategies.sampled_from(['It holds ', 'He said "', 'with 5,', 'At a', 'no.', 'the ',
                                       'It was: ', 'It is old. The ', 'It holds\n', 'x, ']),
    strategies.sampled_from([' people.', '-year plan', ", king", "'s team", '" is here', '\npeople',
                             ' Smith', ' 5 men']))
def test_nothing_vanishes_inside_a_sentence(missing, before, after):
  assert plain_text(f'{before}{missing}{after}\n\nYes.') == 'Yes.'


@hypothesis.given(_missing, strategies.sampled_from(
    [' people came.', '-year plan', ', king', "'s team", '" is here', ' Smith came',
     '\npeople came']))
def test_nothing_vanishes_where_a_sentence_starts(missing, after):
  for start in ('', '"', '* ', '; '):
    if start not in ('* ', '; ') or not after.startswith('\n'):  # an item ends with its line
      assert plain_text(f'{start}{missing}{after}\n\nYes.') == 'Yes.'


@pytest.mark.parametrize('wikitext, text', [
  ('It is a long day.{{note that|1}} It ends.', 'It is a long day. It ends.'),
  ('It is a "long" day."{{note that|1}}', 'It is a "long" day."'),
  ('It is a long day.{{note|1}}{{other\n|2}}\nIt ends.', 'It is a long day. It ends.'),
  ("{{box\n|a=b\n}} '''Berlin''' is a city.", 'Berlin is a city.'),
  ("{{box\n|a=b\n}}\n日本は国である。", '日本は国である。'),
  ("{{box|a}}{{box\n|b\n}}'''Berlin''' is a city.", 'Berlin is a city.'),
  ('{{box|a}}\n{{box\n|b=c\n}}\n"Berlin" is a city.', '"Berlin" is a city.'),
  ('Berlin is a city.\n{{box|a}}\nIt is old.', 'Berlin is a city.\n\nIt is old.'),
  ('* Berlin\n{{box|a}}\n* Rome', 'Berlin\n\nRome'),
  ('Berlin ({{IPA|de|x}}; {{lang-la|Berolinum}}) is', 'Berlin (Berolinum) is'),
  ('Warszawa ({{lang-pl|Warszawa}} {{IPA-pl|x}}) is', 'Warszawa (Warszawa) is'),
  ('Berlin ({{coord|1|2}}) is a city.', 'Berlin is a city.'),
  ('Berlin is a city. {{coord|52|31|N|display=title}}', 'Berlin is a city.'),
  ('Berlin (pronounced {{IPA|x}}) is', ''),
])
def test_boxes_notes_and_remarks(wikitext, text):
  assert plain_text(wikitext) == text
