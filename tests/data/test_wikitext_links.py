"""Images, categories and translations show no text; every other link does."""

import pytest

from toolformer_jax.data.wikitext import plain_text


@pytest.mark.parametrize('namespace', [
  'File', 'image', 'Afbeelding', 'Kuva', 'Grafika', 'Kép', 'Billede', 'Bilde', 'Gambar', 'Hình',
  'Εικόνα', '图像', 'Tập_tin', ' Tập  tin ', 'Imagen', 'Obrázok', 'Изображение', 'Слика', 'تصویر',
  'Kategorie',
])
def test_names_of_file_namespaces(namespace):
  assert plain_text(f'[[{namespace}:Quay|x|Boats at a [[quay]]]]Prose.') == 'Prose.'


@pytest.mark.parametrize('link', [
  '[[Bi lo:Quay|thumb|Boats]]', '[[Bilo:Quay|250px|Boats]]', '[[Bilo:Quay|x200px]]',
  '[[Bilo:Quay|100x200px|right|Boats]]', '[[Bilo:Quay|right|Boats]]', '[[Bilo:Quay|alt=a|Boats]]',
  '[[Bilo:Quay|mini|hochkant=1.2|Boats]]', '[[Bilo:Quay.JPG|Boats]]', '[[Bilo:Quay.svg]]',
])
def test_images_of_unknown_namespaces(link):
  assert plain_text(f'{link}Prose.') == 'Prose.'


@pytest.mark.parametrize('link, text', [
  ('[[Media:x.ogg|anthem]]', 'anthem'), ('[[media:x.jpg|picture]]', 'picture'),
  ('[[Medium:x.ogg|anthem]]', 'anthem'), ('[[Politics: left and right|right]]', 'right'),
  ('[[Re: Zero|frame]]', 'frame'), ('[[:File:Quay.jpg|quay]]', 'quay'),
  ('[[:Category:Quays]]', 'Category:Quays'), ('[[thumb|right]]', 'right'),
  ('{{{1|anthem}}}', 'anthem'), ('http://a.org/b', 'http://a.org/b'),
  ('[http://a.org anthem]', 'anthem'),
])
def test_links_that_show_text(link, text):
  assert plain_text(f'The {link} was.') == f'The {text} was.'
