"""Corpora of TensorFlow Datasets, in the formats of C4, Wikipedia and Wiki-40B, built here."""

from collections import Counter

import pytest

pytest.importorskip('tensorflow_datasets')

import seqio  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402

from toolformer_jax.data.corpus import read_corpus  # noqa: E402
from toolformer_jax.data.seqio_vocabulary import SHIFT, ShiftedVocabulary  # noqa: E402
from toolformer_jax.training.sources import read_texts  # noqa: E402

NUMBER = 60
_ARTICLE = ('\n_START_ARTICLE_\nTitle {i}\n_START_SECTION_\nHistory\n_START_PARAGRAPH_\n'
            'First {i}!_NEWLINE_Second.\n_START_PARAGRAPH_\nThird.')


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A corpus of `NUMBER` rows of texts."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    texts = {name: tfds.features.Text() for name in self.row(0)}
    return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(texts))

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(NUMBER):
      yield i, self.row(i)


class C4Planted(_Builder):
  """C4."""

  @staticmethod
  def row(i):
    return {'text': f'Text {i}!', 'url': f'https://example.org/{i}', 'content-length': '7',
            'timestamp': '2019-04-25T12:57:54Z', 'content-type': 'text/plain'}


class WikipediaPlanted(_Builder):
  """Wikipedia."""

  @staticmethod
  def row(i):
    return {'text': f'Text {i}!', 'title': f'Title {i}'}


class Wiki40bPlanted(_Builder):
  """Wiki-40B."""

  @staticmethod
  def row(i):
    return {'text': _ARTICLE.format(i=i), 'wikidata_id': f'Q{i}', 'version_id': f'{i}'}


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """The three corpora, each in four files."""
  path = tmp_path_factory.mktemp('tfds')
  shards = tfds.download.DownloadConfig(num_shards=4)
  for builder in (C4Planted, WikipediaPlanted, Wiki40bPlanted):
    builder(data_dir=path).download_and_prepare(download_config=shards)
  tfds.core.add_data_dir(path)
  return path


def _numbers(documents):
  return Counter(int(''.join(filter(str.isdigit, document.text.split('!')[0])))
                 for document in documents)


def test_documents_have_what_their_format_has(prepared):
  c4 = list(read_corpus('tfds:c4_planted'))
  assert _numbers(c4) == Counter(range(NUMBER))
  number = int(c4[0].text.removeprefix('Text ').removesuffix('!'))
  assert c4[0].date == '2019-04-25' and c4[0].url == f'https://example.org/{number}'
  for document in read_corpus('tfds:wikipedia_planted'):
    assert document.title.removeprefix('Title ') == document.text[5:-1]
  articles = list(read_corpus('tfds:wiki40b_planted'))
  assert _numbers(articles) == Counter(range(NUMBER))
  for document in articles:
    number = document.title.removeprefix('Title ')
    assert document.text == f'First {number}!\nSecond.\nThird.'


def test_ids_and_order_are_the_same_each_time(prepared):
  first = list(read_corpus('tfds:c4_planted'))
  assert first == list(read_corpus('tfds:c4_planted'))
  assert [document.id for document in first[:2]] == ['000000001', '000000002']
  few = list(read_corpus('tfds:c4_planted@train[:10]'))
  assert len(few) == 10 and {d.text for d in few} <= {d.text for d in first}


@pytest.mark.parametrize('hosts', [2, 4, 7])
def test_hosts_read_parts_of_a_task_that_are_disjoint_and_complete(prepared, tokenizer, hosts):
  name = f'planted_c4_{hosts}'
  seqio.TaskRegistry.add(
      name, source=seqio.TfdsDataSource('c4_planted:1.0.0'),
      preprocessors=[_as_targets, seqio.preprocessors.tokenize],
      output_features={'targets': seqio.Feature(ShiftedVocabulary(tokenizer), add_eos=False)})
  found = Counter()
  for host in range(hosts):
    dataset = seqio.TaskRegistry.get(name).get_dataset(
        sequence_length=None, split='train', shuffle=False,
        shard_info=seqio.ShardInfo(host, hosts))
    rows = [tuple((row['targets'] - SHIFT).tolist()) for row in dataset.as_numpy_iterator()]
    assert rows
    found.update(rows)
  assert found == Counter(tuple(tokenizer.encode(f'Text {i}!')) for i in range(NUMBER))
  # The whole of it, as it is trained on.
  assert {tuple(row.targets) for row in read_texts(f'seqio:{name}')} == {*found}


@seqio.map_over_dataset
def _as_targets(example):
  return {'targets': example['text']}
