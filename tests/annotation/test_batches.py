"""Batches of the device are full although heuristics select few texts, and records depend neither
on the size of chunks nor on the number of processes.

The texts are real ones, some for each heuristic. The model is random, and writes sums of digits, so
that tools have something to do. The translator is a function.
"""

import gzip
import itertools
import json
import random
from collections import Counter

import jax
import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax import sharding
from toolformer_jax.annotation.config import PAPER_TOOL_CONFIGS
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.data.passages import Page
from toolformer_jax.data.records import Document
from toolformer_jax.inference.batching import TOKENS_COMPUTED, TOKENS_NEEDED
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel, abstract_variables
from toolformer_jax.runtime.run_dir import Shard
from toolformer_jax.tools.passage_index import PassageIndex
from toolformer_jax.tools.qa import QA
from toolformer_jax.tools.wikisearch import WikiSearch

LIKELY = {'1': 9.0, '2': 9.0, '7': 8.0, '+': 8.0, ')': 9.0, ']': 9.0, ' [': 8.0}
TEXTS = {'gsm8k': 60, 'posts': 60, 'wikipedia': 60, 'flores': 20}


@pytest.fixture(scope='module')
def model(smollm2_path):
  tokenizer = GgufFile(smollm2_path).tokenizer()
  config = DecoderConfig(
      vocab_size=tokenizer.vocab_size, layers=2, embed_dim=32, heads=4, kv_heads=2, head_dim=8,
      mlp_dim=64, max_positions=8192, rotary_dim=8, tied_head=False, head_bias=True)
  rng = np.random.default_rng(1)
  def draw(leaf):
    return rng.normal(leaf.ndim < 3 and leaf.shape[-1] == 32, 0.1, leaf.shape).astype(np.float32)
  variables = jax.tree.map(draw, sharding.unbox(abstract_variables(Decoder(config))))
  for mark, logit in LIKELY.items():
    variables['params']['head']['bias'][tokenizer.encode(mark)[0]] += logit
  return LanguageModel.from_variables(config, variables, tokenizer,
                                      sharding.make_mesh(devices=jax.devices()[:1]))


def read_lines(file, count):
  with gzip.open(file, 'rt') as lines:
    return [json.loads(line) for line in itertools.islice(lines, count)]


@pytest.fixture(scope='module')
def pages(data_dir):
  return read_lines(data_dir / 'wikipedia/enwiki2019_subset.jsonl.gz', 100)


@pytest.fixture(scope='module')
def documents(data_dir, pages):
  """Word problems, posts with dates, pages, and foreign sentences between English ones."""
  problems = read_lines(data_dir / 'gsm8k/train.jsonl.gz', TEXTS['gsm8k'])
  posts = read_lines(data_dir / 'usgov_posts/posts.jsonl.gz', TEXTS['posts'])
  english, french = ((data_dir / f'flores200/flores-dev.fr-en.{language}').read_text().splitlines()
                     for language in ('en', 'fr'))
  found = [
      *(Document(f'gsm8k-{i}', f'{row["question"]} {row["answer"].partition("####")[0].strip()}')
        for i, row in enumerate(problems)),
      *(Document(f'post-{i}', row['text'][:1200], date=row['date']) for i, row in enumerate(posts)),
      *(Document(f'page-{i}', row['text'][:1500], title=row['title'])
        for i, row in enumerate(pages[:TEXTS['wikipedia']])),
      *(Document(f'foreign-{i}', f'{english[2 * i]} {french[2 * i + 1]} {english[2 * i + 1]}')
        for i in range(TEXTS['flores']))]
  random.Random(0).shuffle(found)
  return found


@pytest.fixture(scope='module')
def annotate(model, pages):
  index = PassageIndex.build(Page(page['title'], page['text']) for page in pages[60:])
  tools = ['calculator', 'calendar', QA(lambda prompts: ['about 12'] * len(prompts), '1', index),
           WikiSearch(index), tf_jax.tool(lambda argument: argument[::-1], name='MT')]
  def run(path, documents, chunk, shards):
    for index in range(shards):
      result = tf_jax.annotate(
          model, documents, tools=tools, output_dir=path, shard=Shard(index, shards),
          config=tf_jax.AnnotationConfig(max_call_tokens=12, force_name=True,
                                         chunk_documents=chunk),
          tool_configs={name: tf_jax.ToolConfig(tau_s=0.0, k=4, m=4, tau_f=0.0)
                        for name in PAPER_TOOL_CONFIGS})
    assert result.complete
    return result
  return run


def records(path):
  """Returns the records of each stage, as they are in its files."""
  reader = RunReader(path)
  return {stage: b''.join(reader.chunk_file(stage, chunk).read_bytes()
                          for chunk in reader.all_chunks(stage))
          for stage in reader.settings.folders}


def fill(path):
  """Returns the share of the tokens in all batches of a run that was needed."""
  reader, total = RunReader(path), Counter()
  for stage in reader.settings.folders:
    total.update(reader.counts(stage))
  return total[TOKENS_NEEDED] / total[TOKENS_COMPUTED]


def test_batches_are_full(annotate, documents, tmp_path):
  result = annotate(tmp_path / 'run', documents, 64, 1)
  selected = {name: summary.preselected for name, summary in result.tool_summaries.items()}
  assert 20 <= selected['MT'] < selected['Calendar'] < selected['QA'] == len(result.documents)
  assert all(summary.scored > 50 for summary in result.tool_summaries.values()), result.summary
  assert fill(tmp_path / 'run') >= 0.8, result.summary


def test_records_depend_on_nothing_but_the_texts(annotate, documents, tmp_path):
  some = documents[:70]
  annotate(tmp_path / 'whole', some, 1000, 1)
  whole = records(tmp_path / 'whole')
  assert all(whole.values())
  for chunk, shards in (16, 1), (64, 2), (16, 3):
    annotate(tmp_path / f'{chunk}-{shards}', some, chunk, shards)
    assert records(tmp_path / f'{chunk}-{shards}') == whole
