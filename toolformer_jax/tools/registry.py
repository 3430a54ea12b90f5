"""Builds tools by name, from their configuration."""

import atexit
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from toolformer_jax.checkpoints.loading import load_model
from toolformer_jax.data.content_hash import content_fingerprint, stable_hash
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.runtime.validation import check
from toolformer_jax.tools.apertium import Apertium
from toolformer_jax.tools.base import Complete, Tool
from toolformer_jax.tools.calculator import Calculator
from toolformer_jax.tools.calendar import Calendar
from toolformer_jax.tools.call_store import CallStore
from toolformer_jax.tools.custom import (
  MEDIA_TOOLS,
  PAPER_TOOLS,
  TOOLS,
  CustomToolsConfig,
  function_tool,
)
from toolformer_jax.tools.few_shot import FewShotTranslator
from toolformer_jax.tools.function import as_tool
from toolformer_jax.tools.language import identify_language
from toolformer_jax.tools.media_tools import MediaToolbox
from toolformer_jax.tools.mt import MachineTranslation
from toolformer_jax.tools.nllb import Nllb
from toolformer_jax.tools.passage_index import SearchConfig, passage_index, search_corpus_sha256
from toolformer_jax.tools.qa import QuestionAnswering
from toolformer_jax.tools.wikisearch import WikiSearch

if TYPE_CHECKING:
  from toolformer_jax.models.language_model import LanguageModel

log = logging.getLogger(__name__)

# A tool as an argument: a name, the path of a function ('module:function', 'file.py:function'), an
# object, or a function from an argument to a result.
AnyTool = str | Tool | Callable[..., str]


@dataclass(frozen=True)
class QaConfig:
  """Settings of the question-answering tool.

  Attributes:
    checkpoint: the model that answers: any checkpoint that can be loaded.
    passages: number of passages in its prompt; 0 for none (closed book).
    max_tokens: maximum length of an answer.
  """

  checkpoint: str = 'smollm2-135m'
  passages: int = 1
  max_tokens: int = 16

  def __post_init__(self) -> None:
    check(self, passages=(0, 100), max_tokens=(1, 1000))


@dataclass(frozen=True)
class MtConfig:
  """Settings of the translation tool.

  Attributes:
    translator: 'apertium' (rules, installed by `make apertium`), 'nllb' (as in the paper) or
      'few_shot' (a language model).
    checkpoint: for 'nllb', an output directory of ct2-transformers-converter; for 'few_shot', a
      model. Apertium needs none.
    least_confidence: lowest probability of the detected source language for a translation.
  """

  translator: Literal['apertium', 'nllb', 'few_shot'] = 'apertium'
  checkpoint: str = 'smollm2-135m'
  least_confidence: float = 0.3

  def __post_init__(self) -> None:
    check(self, least_confidence=(0.0, 1.0))


@dataclass(frozen=True)
class Toolbox:
  """The tools that are available by name, and their settings."""

  search: SearchConfig = SearchConfig()
  qa: QaConfig = QaConfig()
  mt: MtConfig = MtConfig()
  custom: CustomToolsConfig = CustomToolsConfig()
  media: MediaLimits = MediaLimits()
  media_tools: MediaToolbox = MediaToolbox()

  def writing_to(self, folder: str | os.PathLike[str] | None) -> Self:
    """Returns a toolbox whose tools write their files to an output folder; None for no change."""
    return self if folder is None else replace(
        self, media_tools=self.media_tools.writing_to(os.fspath(folder)))

  def names(self) -> dict[str, str]:
    """Returns the names of all tools in calls, by their names in lower case."""
    return {name.lower(): name for name in (*TOOLS, *self.custom.names())}

  def canonical_names(self, names: Iterable[str]) -> list[str]:
    """Returns the names in calls of the tools `names` (in any case), without duplicates.

    Raises:
      UserError: a name is unknown, or `names` is empty.
    """
    known = self.names()
    wanted = dict.fromkeys(
        name.strip().lower().replace('-', '_') for name in names if name.strip())
    for name in wanted:
      if name not in known:
        raise unknown('tool', name, known)
    if not wanted:
      raise UserError(f'no tool is named; choose from {", ".join(known)}')
    return [known[name] for name in wanted]

  def available(self) -> list[str]:
    """Returns the paper's tools, without MT if Apertium is configured but not installed."""
    if self.mt.translator != 'apertium' or 'MT' in self.custom.names():
      return list(PAPER_TOOLS)
    try:
      Apertium()
    except UserError as error:
      log.warning('without the tool mt: %s', error)
      return [name for name in PAPER_TOOLS if name != 'MT']
    return list(PAPER_TOOLS)

  def version(self, name: str) -> str:
    """Returns a hash of what the results of a tool depend on: its settings and its data.

    Unlike `build`, this loads no model and builds no index.
    """
    if name in self.custom.names():
      return self.build([name])[0].version
    if name == 'QA':
      search = self._search_version() if self.qa.passages else ''
      made_of = content_fingerprint(self.qa.checkpoint), self.qa, search
    elif name == 'WikiSearch':
      made_of = (self._search_version(),)
    elif name == 'MT':
      apertium = self.mt.translator == 'apertium'
      made_of = self.mt, Apertium().version if apertium else content_fingerprint(self.mt.checkpoint)
    else:
      return self.build([name])[0].version
    return stable_hash(name, *map(str, made_of)).hex()[:16]

  def _search_version(self) -> str:
    return f'{search_corpus_sha256(self.search)} {self.search}'

  def build(self, names: Iterable[str]) -> list[Tool]:
    """Returns the tools `names` (in any case): those of the package, and those of the user.

    The search index is built on first use, by several processes, and stored in the cache.

    Raises:
      UserError: a name is unknown, `names` is empty, or a tool cannot be built.
    """
    return [self._build(name) for name in self.canonical_names(names)]

  def _build(self, name: str) -> Tool:
    if name in self.custom.names():
      return self.custom.build(name)
    if name in MEDIA_TOOLS:
      return self.media_tools.build(name, self.media)
    builders: dict[str, Callable[[], Tool]] = {
        'Calculator': Calculator, 'Calendar': Calendar, 'MT': self._translation,
        'QA': self._question_answering, 'WikiSearch': self._search}
    return builders[name]()

  def _search(self) -> WikiSearch:
    return WikiSearch(passage_index(self.search), self.search.snippet_words)

  def _question_answering(self) -> QuestionAnswering:
    index = passage_index(self.search) if self.qa.passages else None
    complete = completer(_load_for_inference(self.qa.checkpoint), self.qa.max_tokens)
    version = f'{content_fingerprint(self.qa.checkpoint)[:12]}-{self.qa.max_tokens}'
    return QuestionAnswering(complete, version, index, self.qa.passages)

  def _translation(self) -> MachineTranslation:
    if self.mt.translator == 'apertium':
      translator = Apertium()
    elif self.mt.translator == 'nllb':
      translator = Nllb(self.mt.checkpoint, content_fingerprint(self.mt.checkpoint)[:12])
    else:
      complete = completer(_load_for_inference(self.mt.checkpoint), max_tokens=64)
      translator = FewShotTranslator(complete, content_fingerprint(self.mt.checkpoint)[:12])
    return MachineTranslation(translator, identify_language, self.mt.least_confidence)


def tool_object(given: AnyTool) -> Tool | str:
  """Returns a function or `module:function` as a Tool object; the name of a tool as it is.

  Raises:
    UserError: it cannot be imported, or called.
  """
  if isinstance(given, str):
    return function_tool('', given) if ':' in given else given
  return as_tool(given)


def tool_objects(tools: Sequence[AnyTool]) -> dict[str, Tool]:
  """Returns those of `tools` that are not given by name, as Tool objects, by their names."""
  built = [tool_object(one) for one in tools]
  return {one.name: one for one in built if not isinstance(one, str)}


def build_tools(tools: Sequence[AnyTool], toolbox: Toolbox, call_store: CallStore | None = None
                ) -> list[Tool]:
  """Returns Tool objects for names (built by `toolbox`), paths, functions and Tool objects.

  In a replay no tool is built, because all answers are in `call_store`.

  Raises:
    UserError: a name is unknown, or a tool cannot be built.
  """
  given = [tool_object(one) for one in tools]
  if call_store and call_store.replay:
    names = [name for one in given for name in (
        toolbox.canonical_names([one]) if isinstance(one, str) else [one.name])]
    return [call_store.replayed_tool(name) for name in dict.fromkeys(names)]
  built: list[Tool] = []
  for one in given:
    built += toolbox.build([one]) if isinstance(one, str) else [one]
  if call_store:
    for one in built:
      call_store.add_tool(one)
  return list({one.name: one for one in built}.values())


def completer(model: 'LanguageModel', max_tokens: int) -> Complete:
  """Returns a function that continues prompts greedily up to the end of the line."""
  from toolformer_jax.inference.config import GenerationConfig
  from toolformer_jax.inference.generation import generate
  config = GenerationConfig(max_tokens=max_tokens, disable_tools=True, stop=('\n',))
  turn = threading.Lock()
  # Python would crash if it ended while a thread computes, so the end waits for it.
  atexit.register(turn.acquire)
  def complete(prompts: Sequence[str]) -> list[str]:
    ids = [model.tokenizer.encode(prompt) for prompt in prompts]
    with turn:
      return [output.text for output in generate(model, ids, config=config)]
  return complete


def _load_for_inference(checkpoint: str) -> 'LanguageModel':
  return load_model(checkpoint).for_inference()
