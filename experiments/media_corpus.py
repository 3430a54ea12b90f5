"""Makes a corpus and held-out questions about pictures, sound and video whose content is known.

    python experiments/media_corpus.py --output D [--documents 100] [--questions 100]
        [--photos skimage/data] [--parts text,photo,speech,video]

Text is rendered as signs, receipts and charts; sentences are spoken by flite and espeak-ng in turn;
a clip shows photos while a sentence is spoken. The photos are crops of those of scikit-image, which
are read from the folder `data` of its wheel. Those of the questions are other photos than those of
the corpus, and their numbers and sentences are drawn with another seed. The folder gets, for each
part, a corpus `PART.jsonl` for `toolformer annotate` and `PART_questions.jsonl`.
"""

import argparse
import io
import json
import pathlib
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolformer_jax import cli
from toolformer_jax.errors import UserError
from toolformer_jax.tools.speak import synthesize

# What each photo shows: in words, and the classes that are right for it.
PHOTOS = {
  'chelsea.png': ('a cat', ('tabby', 'tiger cat', 'Egyptian cat')),
  'coffee.png': ('an espresso', ('espresso', 'cup', 'coffee mug')),
  'motorcycle_left.png': ('a moped', ('moped', 'motor scooter')),
  'rocket.jpg': ('a missile', ('missile', 'projectile')),
}
_FOR_CORPUS = ('chelsea.png', 'coffee.png')
_CITIES = 'Boston Denver Oslo Madrid Chicago Vienna Dublin Seattle Berlin Toronto'.split()
_DAYS = 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'.split()
_GOODS = 'Coffee Bread Butter Cheese Apples Honey Rice Soap Paper Candles Tea Flour'.split()
_THINGS = 'chairs tables blankets lamps tickets umbrellas baskets candles'.split()
_PLACES = 'garden kitchen library harbour station market museum school'.split()
_NUMBERS = 'two three four five six seven eight nine ten eleven twelve'.split()


@dataclass(frozen=True)
class Item:
  """A text about a medium.

  Attributes:
    before: the text up to what the medium tells.
    answer: what it tells.
    after: the rest of the text.
    content: all that is in the medium, in words.
    medium: the content of its file.
    suffix: of the file's name.
    accepted: other answers that are right.
  """

  before: str
  answer: str
  after: str
  content: str
  medium: bytes
  suffix: str
  accepted: tuple[str, ...] = ()


def main() -> None:
  """Writes the corpora and the questions."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output', required=True, type=pathlib.Path, metavar='D')
  parser.add_argument('--documents', type=int, default=100, metavar='N', help='of each part')
  parser.add_argument('--questions', type=int, default=100, metavar='N', help='of each part')
  parser.add_argument('--photos', type=pathlib.Path, metavar='D')
  parser.add_argument('--parts', default=','.join(MAKERS), metavar='A,B')
  parser.add_argument('--seed', type=int, default=0, metavar='N')
  args = parser.parse_args()
  for part in args.parts.split(','):
    for name, count, held_out in ((part, args.documents, False),
                                  (f'{part}_questions', args.questions, True)):
      items = make(part, count, args.seed, held_out, args.photos)
      write(args.output, name, items, question=held_out)
      print(f'{args.output / name}.jsonl: {count}')


def make(part: str, count: int, seed: int, held_out: bool, photos: pathlib.Path | None
         ) -> Iterator[Item]:
  """Yields items of a part: 'text', 'photo', 'speech' or 'video'.

  Raises:
    UserError: the part needs photos, and there are none.
  """
  if part not in MAKERS:
    raise UserError(f'{part} is no part; choose from {", ".join(MAKERS)}')
  if part in ('photo', 'video') and not (photos and (photos / 'chelsea.png').is_file()):
    raise UserError(f'the part {part} needs photos: unpack the wheel of scikit-image, and name its '
                    'folder skimage/data with --photos')
  names = [name for name in PHOTOS if (name in _FOR_CORPUS) != held_out]
  for number in range(count):
    chance = random.Random(f'{part} {seed} {held_out} {number}')
    yield MAKERS[part](chance, number, [photos / name for name in names] if photos else [])


def write(folder: pathlib.Path, name: str, items: Iterator[Item], question: bool) -> None:
  """Writes items as JSON Lines, and their media beside them."""
  (folder / 'media').mkdir(parents=True, exist_ok=True)
  with open(folder / f'{name}.jsonl', 'w', encoding='utf-8') as file:
    for number, item in enumerate(items):
      medium = f'media/{name}_{number:04}{item.suffix}'
      (folder / medium).write_bytes(item.medium)
      fields: dict[str, Any] = {'id': f'{name}-{number}', 'media': [medium],
                                'content': item.content,
                                'answers': [item.answer, *item.accepted]}
      if question:
        # Calls stand before the blank, and before a quotation mark after it.
        fields['prompt'] = item.before.removesuffix('"').rstrip()
      else:
        fields['text'] = item.before + item.answer + item.after
      file.write(json.dumps(fields, ensure_ascii=False) + '\n')


def rendered_text(chance: random.Random, number: int, photos: Sequence[pathlib.Path]) -> Item:
  """Returns a text about a sign, a receipt or a chart, in turn."""
  return (_sign, _receipt, _chart)[number % 3](chance)


def _sign(chance: random.Random) -> Item:
  lines = chance.choice([
    [f'ROOM {chance.randint(100, 999)}', f'CLOSED ON {chance.choice(_DAYS).upper()}'],
    [f'PLATFORM {chance.randint(2, 29)}', f'TO {chance.choice(_CITIES).upper()}'],
    [f'{chance.choice(_GOODS).upper()} SALE', f'{chance.randint(11, 69)} PERCENT OFF']])
  before = chance.choice([
    'We stopped in front of the sign (image 1), which reads ',
    'There is a notice on the door (image 1). In large letters it says ',
    'Nobody had seen the board in the hall (image 1) before. It says '])
  return Item(before, ' '.join(lines), '. So we went on.', ' '.join(lines),
              draw_lines(lines, 40, chance), '.png')


def _receipt(chance: random.Random) -> Item:
  goods = chance.sample(_GOODS, chance.randint(2, 5))
  cents = [chance.randint(95, 4999) for _ in goods]
  rows = [(name, f'{price / 100:.2f}') for name, price in zip(goods, cents, strict=True)]
  rows.append(('TOTAL', f'{sum(cents) / 100:.2f}'))
  lines = [f'{chance.choice(_CITIES).upper()} STORE', *rows]
  before = chance.choice([
    'The receipt (image 1) comes to a total of ',
    'She kept the bill of the shop (image 1). The sum that she paid was ',
    'Here is what we bought for the party (image 1). All in all it cost '])
  content = ' '.join(' '.join(line) if isinstance(line, tuple) else line for line in lines)
  return Item(before, rows[-1][1], ', which is less than we thought.', content,
              draw_lines(lines, 26, chance), '.png')


def _chart(chance: random.Random) -> Item:
  names = chance.sample(_CITIES, 4)
  values = chance.sample(range(120, 990), 4)
  best = max(values)
  before = chance.choice([
    'The chart (image 1) shows the sales of four shops. The highest bar stands at ',
    'In the figure (image 1) the best of the four branches reaches '])
  content = ' '.join(map(str, (*values, *names)))
  return Item(before, str(best), ' units, and the others are well below.', content,
              draw_chart(names, values), '.png')


def photo(chance: random.Random, number: int, photos: Sequence[pathlib.Path]) -> Item:
  """Returns a text about a crop of a photo."""
  path = photos[number % len(photos)]
  words, classes = PHOTOS[path.name]
  before = chance.choice([
    'In the first picture of the album (image 1) one sees ',
    'The photo on the wall (image 1) shows ',
    'He sent us a snapshot of what stood on his desk (image 1): '])
  return Item(before, words, ', and nothing else.', words, png(crop(path, chance)), '.png',
              classes)


def speech(chance: random.Random, number: int, photos: Sequence[pathlib.Path]) -> Item:
  """Returns a text about a spoken sentence."""
  sentence, fact = _sentence(chance)
  before = chance.choice([
    'The announcement (audio 1) says: "', 'On the answering machine (audio 1) a voice says: "',
    'We listened to the recording (audio 1) again. It says: "'])
  spoken = synthesize(sentence, ('flite', 'espeak-ng')[number % 2])
  return Item(before, sentence, '" Then it ends.', sentence, spoken, '.wav', (fact,))


def video(chance: random.Random, number: int, photos: Sequence[pathlib.Path]) -> Item:
  """Returns a text about a clip: a sentence is spoken while two crops of photos are shown."""
  sentence, fact = _sentence(chance)
  before = chance.choice([
    'In the clip (video 1) a voice says: "', 'The reporter in the film (video 1) says: "'])
  pictures = [crop(path, chance) for path in photos]
  spoken = synthesize(sentence, ('flite', 'espeak-ng')[number % 2])
  shown = ' '.join(PHOTOS[path.name][0] for path in photos)
  return Item(before, sentence, '" Then the film ends.', f'{sentence} {shown}',
              film(pictures, spoken), '.mp4', (fact,))


def _sentence(chance: random.Random) -> tuple[str, str]:
  """Returns a sentence, and the fact in it that is hardest to guess."""
  city, day = chance.choice(_CITIES), chance.choice(_DAYS)
  count, place = chance.choice(_NUMBERS), chance.choice(_PLACES)
  return chance.choice([
    (f'The train to {city} leaves on {day} at {count}.', city),
    (f'Please bring {count} {chance.choice(_THINGS)} to the {place} on {day}.', place),
    (f'The {place} will be closed from {day} until the end of the month.', day),
    (f'We have moved the meeting in {city} to {day} afternoon.', city),
    (f'Our flight to {city} is delayed by {count} hours.', city)])


MAKERS: dict[str, Callable[[random.Random, int, Sequence[pathlib.Path]], Item]] = {
  'text': rendered_text, 'photo': photo, 'speech': speech, 'video': video}


def draw_lines(lines: Sequence[str | tuple[str, str]], size: int, chance: random.Random) -> bytes:
  """Returns lines of text as a PNG; a tuple is a name and a price at the right."""
  from PIL import Image, ImageDraw, ImageFont
  font = ImageFont.load_default(size)
  dark, light = chance.choice([((0, 0, 0), (255, 255, 255)), ((20, 20, 90), (245, 240, 220)),
                               ((255, 255, 255), (0, 90, 40))])
  image = Image.new('RGB', (16 * size + 160, 2 * size * len(lines) + 40), light)
  draw = ImageDraw.Draw(image)
  for number, line in enumerate(lines):
    left, right = (line, '') if isinstance(line, str) else line
    height = 20 + 2 * size * number
    draw.text((20, height), left, dark, font=font)
    draw.text((image.width - 20, height), right, dark, font=font, anchor='ra')
  return png(np.asarray(image))


def draw_chart(names: Sequence[str], values: Sequence[int]) -> bytes:
  """Returns a bar chart as a PNG, with the value above each bar and its name below."""
  from PIL import Image, ImageDraw, ImageFont
  font, image = ImageFont.load_default(22), Image.new('RGB', (600, 440), 'white')
  draw = ImageDraw.Draw(image)
  for number, (name, value) in enumerate(zip(names, values, strict=True)):
    middle, top = 90 + 140 * number, 400 - value // 3
    draw.rectangle((middle - 40, top, middle + 40, 400), 'steelblue')
    draw.text((middle, top - 30), str(value), 'black', font=font, anchor='ma')
    draw.text((middle, 406), name, 'black', font=font, anchor='ma')
  return png(np.asarray(image))


def crop(path: pathlib.Path, chance: random.Random) -> np.ndarray:
  """Returns a part of a photo, uint8 [240, 320, 3], perhaps mirrored, lighter or darker."""
  from PIL import Image, ImageEnhance, ImageOps
  with Image.open(path) as opened:
    image = opened.convert('RGB')
  share = chance.uniform(0.75, 1)
  width, height = round(image.width * share), round(image.height * share)
  left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
  part = image.crop((left, top, left + width, top + height))
  if chance.random() < 0.5:
    part = ImageOps.mirror(part)
  part = ImageEnhance.Brightness(part).enhance(chance.uniform(0.7, 1.3))
  return np.asarray(part.resize((320, 240)))


def png(image_HWC: np.ndarray) -> bytes:
  """Returns a picture as a PNG."""
  from PIL import Image
  buffer = io.BytesIO()
  Image.fromarray(image_HWC).save(buffer, 'PNG')
  return buffer.getvalue()


def film(pictures: Sequence[np.ndarray], sound: bytes, seconds: int = 2, rate: int = 5) -> bytes:
  """Returns a video that shows each picture, uint8 [H, W, 3], for some seconds, to a sound."""
  import av
  buffer = io.BytesIO()
  with av.open(buffer, 'w', format='mp4') as made, av.open(io.BytesIO(sound)) as heard:
    frames = made.add_stream('mpeg4', rate=rate)
    frames.height, frames.width, frames.pix_fmt = *pictures[0].shape[:2], 'yuv420p'
    samples = made.add_stream('aac', rate=heard.streams.audio[0].rate)
    for picture_HWC in pictures:
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format='rgb24')
      for _ in range(seconds * rate):
        made.mux(frames.encode(frame))
    made.mux(frames.encode(None))
    for part in heard.decode(audio=0):
      made.mux(samples.encode(part))
    made.mux(samples.encode(None))
  return buffer.getvalue()


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
