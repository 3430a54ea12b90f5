"""Measures, money, years and words of other languages, as a reader sees their templates."""

import pytest

from toolformer_jax.data.wikitext import plain_text


@pytest.mark.parametrize('wikitext, text', [
  ('{{convert|5|e6acre|km2}}', '5 million acres'), ('{{convert|5|e3km2}}', '5 thousand km²'),
  ('{{convert|1.5|e9USgal|m3}}', '1.5 billion US gal'), ('{{convert|1|acre}}', '1 acre'),
  ('{{convert|10|m3/s|cuft/s}}', '10 m³/s'), ('{{convert|5|/sqmi|/km2}}', '5/sq mi'),
  ('{{convert|5|C-change}}', '5 °C'), ('{{convert|5|e6acre|adj=on}}', '5-million-acre'),
  ('{{convert|2|lb|3|oz|kg|1}}', '2 lb 3 oz'), ('{{convert|5|km|disp=out}}', ''),
  ('{{convert|5|strange//unit}}', ''), ('{{convert|5|e7acre}}', ''),
  ('{{INRConvert|5|c}}', '₹5 crore'), ('{{INRConvert|5|l}}', '₹5 lakh'),
  ('{{INRConvert|5|?}}', ''), ('{{USD|10|1990}}', 'US$10'), ('{{GBP|5 million}}', '£5 million'),
  ('{{EUR|5|b}}', ''), ('{{US$}}', 'US$'),
  ('{{circa|1200|1210}}', 'c. 1200 – c. 1210'), ('{{reign|1200|1210}}', 'r. 1200–1210'),
  ('{{circa}} 1200', 'c. 1200'),
  ('{{langx|ru|Москва|Moskva|Moscow}}', 'Москва'), ('{{lang|ja|日本|rtl}}', '日本'),
  ('{{lang-ru|Москва|Moskva}}', 'Москва'), ('{{lang|fr}}', ''),
  ('{{lang|1=fr|2=a=b}}', 'a=b'), ('{{transl|ar|ALA|Dimashq}}', 'Dimashq'),
  ('{{harvtxt|Smith|2000}}', 'Smith (2000)'),
  ('{{harvtxt|Smith|Jones|Ho|2000|p=3}}', 'Smith, Jones & Ho (2000)'),
  ('{{audio|x.ogg|Berlin}}', 'Berlin'),
  ('-{zh-hans:软件;zh-hant:軟體}-', '软件'), ('-{zh-tw:軟體; zh-cn:软件;}-', '软件'),
  ('-{zh-tw:a&nbsp;b;zh-hk:c}-', 'a b'), ('-{A|zh-hans:软件;zh-hant:軟體}-', '软件'),
  ('-{sr-ec:Њутн; sr-el:Njutn}-', 'Њутн'), ('-{Win: a}-', 'Win: a'), ('-{x=>zh-cn:y;}-', ''),
  ('-{H|zh-cn:a;zh-tw:b}-it', 'it'), ('-{T|a}-it', 'it'), ('-{a {{b}}}-', ''),
])
def test_templates(wikitext, text):
  assert plain_text(f'Of {wikitext} here.') == (f'Of {text} here.' if text else '')


@pytest.mark.parametrize('power', ['2', '-5', '−5', '1.5', 'n', "'''5'''", '[[five|5]]', '2 ',
                                   '{{nowrap|5}}', '1/2', '&minus;1', 'n+1', 'x', '10'])
def test_powers_are_never_read_as_digits(power):
  assert plain_text(f'It is 10<sup>{power}</sup> m.\n\nYes.') == 'Yes.'
  assert plain_text(f'It is 10{{{{sup|{power}}}}} m.\n\nYes.') == 'Yes.'


@pytest.mark.parametrize('raised', ['th', 'e', 'er', 'TM', '+', '2+', "''st''"])
def test_raised_letters_are_read(raised):
  assert plain_text(f'The 20<sup>{raised}</sup>.') == f'The 20{raised.strip(chr(39))}.'
