"""Caches a task of seqio as `seqio_cache_tasks` does, which needs Apache Beam."""

import json

import seqio
import tensorflow as tf


def cache(task, directory, split):
  """Writes the examples of a task before the placeholder of its cache, in one file."""
  folder = directory / task.name
  folder.mkdir()
  dataset = task.preprocess_precache(task.source.get_dataset(split, shuffle=False))
  rows = list(dataset.as_numpy_iterator())
  with tf.io.TFRecordWriter(str(folder / f'{split}.tfrecord-00000-of-00001')) as writer:
    for row in rows:
      writer.write(seqio.dict_to_tfexample(row).SerializeToString())
  features = {name: {'shape': spec.shape.as_list(), 'dtype': spec.dtype.name}
              for name, spec in dataset.element_spec.items()}
  (folder / f'info.{split}.json').write_text(json.dumps(
      {'num_shards': 1, 'features': features, 'seqio_version': seqio.__version__}))
  (folder / f'stats.{split}.json').write_text(json.dumps({'examples': len(rows)}))
  (folder / 'COMPLETED').write_text('')
