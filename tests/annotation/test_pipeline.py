"""A run that is killed and started again ends with the files of one that was not."""

import contextlib
import dataclasses
import pathlib
import re
import resource
import signal
import threading
from collections import Counter

import pytest

from toolformer_jax.annotation.config import AnnotationConfig, ToolConfig
from toolformer_jax.annotation.documents import as_documents, split_and_filter
from toolformer_jax.annotation.pipeline import AnnotationPipeline
from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.annotation.stage_keys import MERGED
from toolformer_jax.annotation.tool_plan import ToolPlan
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import Document, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import Shard
from toolformer_jax.tools.calculator import Calculator
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.executor import ExecutorConfig

from .killed import killed_after

TEXTS = [f'There are {i} and {i + 7} ducks. In all there are {2 * i + 7} ducks.' for i in range(7)]
DOCUMENTS = [Document(f'd{i}', text) for i, text in enumerate(TEXTS)]
WAIT_S = 60.0  # far more than anything here needs, and less than the time limit of a call


class Echo:
  """Gives any argument back, cut: a random model writes nothing that a calculator could read."""

  name, version = 'Calculator', 'echo'

  def __call__(self, argument, context):
    return f'<{argument[:5]}>'


class Long(Echo):
  """Has results that take much more room than anything else."""

  version = 'long'

  def __call__(self, argument, context):
    return 'long ' * 100


class Waiting(Echo):
  """Waits for `event` if the call is from one of the documents `of`; the first does `first`."""

  def __init__(self, of, first=lambda: None):
    self.of, self.first, self.once = of, first, threading.Lock()
    self.event, self.waited_in_vain = threading.Event(), False

  def __call__(self, argument, context):
    if context.document_id in self.of:
      if self.once.acquire(blocking=False):
        self.first()
      self.waited_in_vain |= not self.event.wait(WAIT_S)
    return super().__call__(argument, context)


@pytest.fixture
def annotation(make_eager_model):
  settings = AnnotationConfig(force_name=True, max_text_tokens=60, max_call_tokens=6,
                              window_documents=2, chunk_documents=2, temperature=3.0,
                              preselect=False)
  plan = ToolPlan(Echo(), ToolConfig(tau_s=0.0, k=3, m=4, tau_f=-1.0), CALCULATOR)
  model = make_eager_model(max_positions=8192)
  return AnnotationPipeline(model, (plan,), settings, ExecutorConfig(time_limit_s=600.0))


def files(folder: pathlib.Path) -> dict[str, bytes]:
  return {path.relative_to(folder).as_posix(): path.read_bytes()
          for path in sorted(folder.rglob('*')) if path.is_file() and path.name != 'times.log'}


def without_keys(names):
  """Returns names of files without the hashes in the names of their folders."""
  return {re.sub(r'/[0-9a-f]{12}/', '/', name) for name in names}


def run(annotation, path, corpus=lambda: DOCUMENTS, **kwargs):
  with RunFolder(path, annotation.configuration(), {}) as folder:
    annotation.run(corpus, folder, **kwargs)
    return list(folder.annotated())


@pytest.mark.parametrize('writes', [1, 6, 9, 13, 18, 22])
def test_resumed_equals_undisturbed(annotation, tmp_path, writes):
  records = run(annotation, tmp_path / 'whole')
  assert sum(len(record.calls) for record in records) > 5
  with killed_after(writes):
    run(annotation, tmp_path / 'killed')
  run(annotation, tmp_path / 'killed')
  assert files(tmp_path / 'killed') == files(tmp_path / 'whole')


def run_shard(annotation, path, index, count, **kwargs):
  with RunFolder(path, annotation.configuration(), {}, Shard(index, count)) as folder:
    annotation.run(lambda: DOCUMENTS, folder, **kwargs)


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 0, 1)])
def test_shards_together_are_the_whole(annotation, tmp_path, order):
  run(annotation, tmp_path / 'whole')
  for index in order:
    assert not (tmp_path / 'shards' / MERGED).exists()  # the last one merges
    run_shard(annotation, tmp_path / 'shards', index, 3)
  def records(folder):
    return {name: data for name, data in files(tmp_path / folder).items()
            if '.lock' not in name and not name.startswith('times')}
  assert records('shards') == records('whole')


def test_shards_have_the_folder_at_once_but_none_twice(annotation, tmp_path):
  shared = (tmp_path, annotation.configuration(), {})
  with RunFolder(*shared, Shard(0, 2)), RunFolder(*shared, Shard(1, 2)):
    for shard in Shard(0, 2), Shard(1, 2), Shard():
      with pytest.raises(UserError, match='another process is writing'):
        RunFolder(*shared, shard)
    with pytest.raises(UserError, match='is in use by processes with 2 shards, not 3'):
      RunFolder(*shared, Shard(2, 3))
  with RunFolder(*shared, Shard(2, 3)):
    pass
  with RunFolder(*shared), pytest.raises(UserError, match='another process is writing'):
    RunFolder(*shared, Shard(0, 2))


@pytest.mark.parametrize(('index', 'count'), [(2, 2), (-1, 2), (0, 0)])
def test_a_shard_is_one_of_its_count(index, count):
  with pytest.raises(UserError, match='shards are numbered from 0'):
    Shard(index, count)


def test_a_stage_alone_needs_only_its_own_shard(annotation, tmp_path):
  run_shard(annotation, tmp_path, 0, 2, stages=('sample',))
  run_shard(annotation, tmp_path, 0, 2, stages=('execute', 'filter'))
  with pytest.raises(UserError, match='run the stages before it first'):
    run_shard(annotation, tmp_path, 1, 2, stages=('execute',))
  with pytest.raises(UserError, match='run the stages before it first'):
    run_shard(annotation, tmp_path, 0, 2, stages=('merge',))


def test_pieces_get_ids_that_no_other_text_has(annotation, tmp_path):
  long, short = Document('d', 'Many words. ' * 20), Document('d-1', 'hi')
  for folder, corpus in (('after', [long, short]), ('before', [short, long])):
    run(annotation, tmp_path / folder, lambda corpus=corpus: corpus, stages=('sample',))
  with pytest.raises(UserError, match="two texts have the id 'd'"):
    run(annotation, tmp_path / 'same', lambda: [Document('d', 'hi'), Document('d', 'ho')])


def test_ids_of_pieces_are_unique(tokenizer):
  long, short = Document('d', 'Many words. ' * 20), Document('d-1', 'hi')
  for corpus in ([long, short], [short, long], [long, Document('d-1', long.text), short]):
    pieces = [piece for piece, _ in split_and_filter(
        corpus, Counter(), tokenizer=tokenizer, syntax=DEFAULT_SYNTAX, max_tokens=64,
        heuristics=(), seed=0)]
    assert len({piece.id for piece in pieces}) == len(pieces) > 2
    assert ' '.join(piece.text for piece in pieces).split() == ' '.join(
        document.text for document in corpus).split()


def test_texts_that_a_call_could_not_be_taken_out_of_are_left_out(tokenizer):
  # Whether its first bracket is a call depends on what is inserted into it.
  texts = [' [QA((1)] [Foo(x) y) -> z', 'an open [Calculator(1 and no end', 'a [note] (1)']
  counts = Counter()
  left = [piece.text for piece, _ in split_and_filter(
      as_documents(texts), counts, tokenizer=tokenizer, syntax=DEFAULT_SYNTAX, max_tokens=64,
      heuristics=(), seed=0)]
  assert left == texts[2:] and counts['with a call already'] == 2


def test_a_cap_holds_over_all_chunks(annotation, tmp_path):
  whole = run(annotation, tmp_path / 'whole')
  plan, = annotation.plans
  capped = dataclasses.replace(plan, config=dataclasses.replace(plan.config, max_texts=2))
  some = run(dataclasses.replace(annotation, plans=(capped,)), tmp_path / 'capped')
  assert len(whole) > 2 and len(some) == 2
  assert [record for record in whole if record in some] == some


def test_a_replayed_run_is_identical_without_the_tool(annotation, tmp_path):
  with contextlib.closing(CallStore(tmp_path / 'calls')) as store:
    store.add_tool(annotation.plans[0].tool)
    first = run(dataclasses.replace(annotation, call_store=store), tmp_path / 'recorded')
  with contextlib.closing(CallStore(tmp_path / 'calls', replay=True)) as store:
    plan = dataclasses.replace(annotation.plans[0], tool=store.replayed_tool('calculator'))
    replayed = dataclasses.replace(annotation, plans=(plan,), call_store=store)
    assert run(replayed, tmp_path / 'replayed') == first
  assert files(tmp_path / 'replayed') == files(tmp_path / 'recorded')


def test_done_work_is_not_done_again(annotation, tmp_path):
  run(annotation, tmp_path)
  def corpus():
    raise AssertionError('the corpus was read again')
  before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.jsonl')}
  run(annotation, tmp_path, corpus)
  assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.jsonl')} == before


def test_chunks_do_not_matter_to_a_document(annotation, tmp_path):
  whole = run(annotation, tmp_path / 'all')
  alone = run(annotation, tmp_path / 'one', lambda: DOCUMENTS[3:4])
  same = [record for record in whole if record.document.id == 'd3']
  assert [[(c.position, c.argument) for c in record.calls] for record in alone] == [
      [(c.position, c.argument) for c in record.calls] for record in same]


def test_kept_calls_tell_the_characters_before_them(annotation, tmp_path):
  tokenizer = annotation.model.tokenizer
  calls = [(record.document.text, call) for record in run(annotation, tmp_path)
           for call in record.calls]
  assert calls
  for text, call in calls:
    assert text[:call.char_offset] == tokenizer.decode(tokenizer.encode(text)[:call.position])


def test_a_stage_needs_the_one_before(annotation, tmp_path):
  for stages in ('execute',), ('filter',), ('sample', 'filter'), ('merge',):
    with pytest.raises(UserError, match='run the stages before it first'):
      run(annotation, tmp_path, stages=stages)
  assert [path.name for path in (tmp_path / 'calculator').iterdir()] == ['select']


@pytest.mark.parametrize('parts', [
  [('sample',), ('execute',), ('filter',), ('merge',)],
  [('sample', 'execute'), ('filter', 'merge')],
  [('sample',), ('execute', 'filter', 'merge')],
])
def test_stages_one_by_one(annotation, tmp_path, parts):
  for stages in parts:
    run(annotation, tmp_path / 'steps', stages=stages)
  run(annotation, tmp_path / 'whole')
  assert files(tmp_path / 'steps') == files(tmp_path / 'whole')


def with_tool(annotation, tool):
  plan, = annotation.plans
  return dataclasses.replace(annotation, plans=(dataclasses.replace(plan, tool=tool),))


def test_tools_work_while_the_next_chunk_is_sampled(annotation, tmp_path, monkeypatch):
  called, order = threading.Event(), []
  tool = Waiting({'d0', 'd1'}, first=called.set)
  write = RunFolder.write
  def meeting_write(self, stage, chunk, *args):
    write(self, stage, chunk, *args)
    order.append(f'{stage.removeprefix("calculator/")} {chunk}')
    if order[-1] == 'sample 1':  # only now may the calls of chunk 0 end, and they have begun
      assert called.wait(WAIT_S)
      tool.event.set()
  monkeypatch.setattr(RunFolder, 'write', meeting_write)
  run(with_tool(annotation, tool), tmp_path / 'overlapped')
  assert not tool.waited_in_vain
  assert order[8:-4] == [
      'sample 0', 'sample 1', 'execute 0', 'filter 0', 'sample 2', 'execute 1', 'filter 1',
      'sample 3', 'execute 2', 'filter 2', 'execute 3', 'filter 3']
  monkeypatch.undo()
  run(annotation, tmp_path / 'whole')
  assert files(tmp_path / 'overlapped') == files(tmp_path / 'whole')


def assert_ends_and_goes_on(annotation, folder, tool, error, done, mend=lambda: None, **kwargs):
  """A run with `tool`, which hangs, ends with `error`; started again, it ends like any other."""
  with pytest.raises(error):
    run(with_tool(annotation, tool), folder / 'ended', **kwargs)
  assert not tool.waited_in_vain
  tool.event.set()
  mend()
  before = {name: content for name, content in files(folder / 'ended').items()
            if not name.endswith('.tmp')}
  run(annotation, folder / 'whole')
  whole = files(folder / 'whole')
  assert done <= without_keys(before)
  assert before.items() <= whole.items()
  run(annotation, folder / 'ended')
  assert files(folder / 'ended') == whole


@pytest.mark.parametrize('stages, file', [
  ((), 'documents/00002.jsonl'),  # ends the sampling of chunk 2
  (('sample',), 'calculator/sample/00002.jsonl'),  # ends the start of its calls
])
def test_an_error_does_not_wait_for_tools(annotation, tmp_path, stages, file):
  run(annotation, tmp_path / 'ended', stages=stages)
  stage, _, name = file.rpartition('/')
  broken, = (tmp_path / 'ended' / stage).glob(f'*/{name}')
  text = broken.read_text()
  broken.write_text('no record')
  assert_ends_and_goes_on(
      annotation, tmp_path, Waiting({'d2', 'd3'}), UserError,
      {'calculator/sample/00001.jsonl', 'calculator/filter/00000.jsonl'},
      mend=lambda: broken.write_text(text))


def test_an_interrupt_does_not_wait_for_tools(annotation, tmp_path):
  tool = Waiting({'d6'}, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
  assert_ends_and_goes_on(
      annotation, tmp_path, tool, KeyboardInterrupt,
      {'calculator/sample/00003.jsonl', 'calculator/execute/00001.jsonl'},
      stages=('sample', 'execute'))


def test_another_configuration_is_refused_and_harms_nothing(annotation, tmp_path):
  run(annotation, tmp_path)
  before = files(tmp_path)
  other = {**annotation.configuration(), 'dtype': 'bfloat16'}
  with pytest.raises(UserError, match=r"dtype \('float32' then, 'bfloat16' now\)"):
    RunFolder(tmp_path, other, {})
  assert files(tmp_path) == before


def test_a_second_writer_is_refused(annotation, tmp_path):
  with RunFolder(tmp_path, {}, {}), pytest.raises(UserError, match='another process'):
    RunFolder(tmp_path, {}, {})


def test_texts_with_calls_are_left_out_and_long_ones_split(annotation, tmp_path):
  long = ' '.join(TEXTS)
  corpus = [Document('call', 'It makes [Calculator(1 + 1) -> 2] 2.'), Document('long', long)]
  with RunFolder(tmp_path, annotation.configuration(), {}) as folder:
    annotation.run(lambda: corpus, folder, stages=('sample',))
    counts = folder.counts('documents')
  assert (counts['read'], counts['with a call already'], counts['split']) == (2, 1, 1)
  assert counts['documents'] > 2


def test_the_real_tool_has_the_same_interface(annotation):
  assert Calculator.name == Echo.name
  assert ScoredCall('d', 'Calculator', '1', 0, 0.5, '1', loss_no_call=2.0, loss_call=1.5,
                    loss_result=1.0).gain == 0.5


def test_a_full_disk_is_an_error_and_what_is_done_stays(annotation, tmp_path):
  """The limit on the size of files stands for the disk."""
  run(annotation, tmp_path / 'whole')
  before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    documents = tmp_path / 'whole' / 'documents'
    # Enough for the texts and the tokenizer, not for what is made of them.
    largest = max(path.stat().st_size for path in [
        *documents.rglob('*.*'), tmp_path / 'whole' / 'tokenizer.json'])
    long = dataclasses.replace(annotation, plans=(dataclasses.replace(
        annotation.plans[0], tool=Long()),))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 1, limits[1]))
    with pytest.raises(UserError, match='cannot write .*jsonl: File too large; the same command'):
      run(long, tmp_path / 'full')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)
  run(long, tmp_path / 'full')
  run(long, tmp_path / 'roomy')
  assert files(tmp_path / 'full') == files(tmp_path / 'roomy')
