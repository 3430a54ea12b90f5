"""Runs an annotation in a folder of its own."""

import contextlib
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping

from etils import epath

from toolformer_jax.annotation.config import STAGES
from toolformer_jax.annotation.departures import annotation_departures
from toolformer_jax.annotation.pipeline import AnnotationPipeline
from toolformer_jax.annotation.result import AnnotationResult
from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.annotation.run_reader import RunReader
from toolformer_jax.data.records import Document
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.runtime.run_dir import Shard, software_versions


def annotate(
    annotation: AnnotationPipeline, corpus: Callable[[], Iterable[Document]], *,
    output_dir: epath.Path | None, depends_on: Mapping[str, str],
    stages: Iterable[str] = STAGES, shard: Shard = Shard(),
    extra_files: Mapping[str, str] | None = None, start_from: Iterable[epath.Path] = (),
) -> AnnotationResult:
  """Runs `annotation`, or continues an earlier run, and writes the report when it is complete.

  Args:
    annotation: the model, the tools and the settings.
    corpus: returns the documents; not called if an earlier run has read all of them.
    output_dir: folder of the run; None for a temporary one, which is removed with the result.
    depends_on: hashes of the checkpoint, the corpus, and everything else that results depend on.
    stages: some of STAGES.
    shard: the part of the work that this process does.
    extra_files: texts that are written to the folder before the work, by file name.
    start_from: folders of other runs, whose stages are used if they depend on the same.

  Raises:
    UserError: the folder holds a run with another configuration or is in use, the corpus is empty
      or broken, or the stage before one of `stages` is not complete.
  """
  with contextlib.ExitStack() as stack:
    path = output_dir or epath.Path(stack.enter_context(tempfile.TemporaryDirectory(
        prefix='toolformer-', ignore_cleanup_errors=True)))
    result = AnnotationResult(RunReader(path), annotation.plans, annotation.config.max_text_tokens,
                              annotation.syntax, output_dir, annotation_departures(
                                  annotation.plans, annotation.config, annotation.syntax,
                                  annotation.model.config))
    with RunFolder(path, {**annotation.configuration(), **depends_on}, software_versions(),
                   shard) as folder:
      folder.write_texts(extra_files or {})
      for run in start_from:
        folder.take_from(run)
      with CompileCounter():
        annotation.run(corpus, folder, stages)
      if result.complete:
        folder.write_text('report.md', result.report)
    # Records are read from the folder when they are used, so it must exist as long as their reader.
    weakref.finalize(result.run, stack.pop_all().close)
  return result
