"""Held-out documents are random, as many as asked for, and nowhere else."""

import functools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.data.corpus_parts import DEV, TEST, TRAIN, divide_corpus
from toolformer_jax.data.records import Document
from toolformer_jax.errors import UserError

from ..media.made_files import picture


def documents(texts):
  return [Document(f'd{i}', text) for i, text in enumerate(texts)]


def texts_of(folder, part):
  return [document.text for document in read_corpus(folder / part)]


@given(numbers=st.lists(st.integers(0, 40), min_size=30, max_size=80), dev=st.integers(1, 5),
       test=st.integers(1, 9), seed=st.integers(0, 3))
def test_parts_are_disjoint_and_have_their_sizes(tmp_path_factory, numbers, dev, test, seed):
  texts = [f'text {number}' for number in numbers]
  if len({*texts}) <= dev + test:
    return
  folder = tmp_path_factory.mktemp('parts')
  counts = divide_corpus(lambda: documents(texts), folder, dev=dev, test=test, seed=seed)
  parts = {part: texts_of(folder, part) for part in (TRAIN, DEV, TEST)}
  assert {part: len(found) for part, found in parts.items()} == counts
  assert (counts[DEV], counts[TEST]) == (dev, test)
  held_out = {*parts[DEV], *parts[TEST]}
  assert len(held_out) == dev + test
  assert parts[TRAIN] == [text for text in texts if text not in held_out]
  # The order of the documents does not matter.
  divide_corpus(lambda: documents(texts[::-1]), folder, dev=dev, test=test, seed=seed)
  assert {*texts_of(folder, DEV)} == {*parts[DEV]} and {*texts_of(folder, TEST)} == {*parts[TEST]}


def test_a_small_corpus_is_refused_and_leaves_no_file(tmp_path):
  with pytest.raises(UserError, match='has 3 documents, too few to hold out 1,000 and 10,000'):
    divide_corpus(lambda: documents('abc'), tmp_path, dev=1000, test=10_000)
  assert not [path for path in tmp_path.rglob('*') if path.is_file()]


def test_parts_with_media_can_be_read_again(tmp_path):
  (tmp_path / 'c/images').mkdir(parents=True)
  rows = []
  for number, color in enumerate(('red', 'green', 'blue', 'white', 'black')):
    (tmp_path / f'c/images/{number}.png').write_bytes(picture(color=color))
    rows.append({'id': color, 'text': 'The sign (image 1).', 'media': [f'images/{number}.png']})
  (tmp_path / 'c/c.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  read = functools.partial(read_corpus, tmp_path / 'c/c.jsonl')
  divide_corpus(read, tmp_path / 'parts', dev=1, test=1)
  found = [document for part in (TRAIN, DEV, TEST)
           for document in read_corpus(tmp_path / 'parts' / part)]
  assert ({document.id: document.media[0].sha256 for document in found}
          == {document.id: document.media[0].sha256 for document in read()})
  assert len(found) == len(rows)
  (tmp_path / 'c/images/3.png').unlink()
  documents = list(found)
  (tmp_path / 'parts' / found[0].media[0].path).unlink()
  with pytest.raises(UserError, match='cannot copy'):
    divide_corpus(lambda: documents, tmp_path / 'other', dev=1, test=1)


def test_one_command_makes_all_parts(experiment, tmp_path, capsys, monkeypatch):
  corpus = tmp_path / 'c.jsonl'
  corpus.write_text(''.join(f'{{"text": "Text {i}."}}\n' for i in range(12_000)))
  script = experiment('divide_corpus')
  monkeypatch.setattr('sys.argv', ['divide_corpus.py', '--corpus', str(corpus),
                                   '--output_dir', str(tmp_path / 'parts')])
  script.main()
  assert [line.rpartition(': ')[2] for line in capsys.readouterr().out.splitlines()] == [
      '1,000 documents', '1,000 documents', '10,000 documents']
