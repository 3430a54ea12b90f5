"""Question answering (paper, section 3): a language model that reads retrieved passages.

The paper uses Atlas. This tool retrieves passages with BM25 and lets any language model answer with
a few-shot prompt. Answers are a few words.
"""

from collections.abc import Sequence

from toolformer_jax import calls
from toolformer_jax.tools.base import Complete, Context, ToolError, call_one
from toolformer_jax.tools.passage_index import PassageIndex

_INSTRUCTION = 'Answer each question with a few words.'
# Invented passages, so that the model can copy the format and nothing else.
_EXAMPLES = (
    ('Lake Brenn > The lake was formed 9,000 years ago by a landslide. It is fed by the Aro.',
     'Which river feeds Lake Brenn?', 'the Aro'),
    ('Maria Oduya > Oduya was born in Mombasa in 1931 and studied law in Leeds.',
     'When was Maria Oduya born?', '1931'),
    ('Tallow > Candles were made of tallow, the fat of cattle or sheep, until wax became cheap.',
     'What is tallow made of?', 'the fat of cattle or sheep'),
)
_MAX_WORDS = 12


class QuestionAnswering:
  """Answers a question with a few words."""

  name = 'QA'
  batch = 8
  time_limit_s = 600.0  # includes compilation and waiting for other calls

  def __init__(self, complete: Complete, version: str, index: PassageIndex | None,
               passages: int = 1):
    """Creates the tool.

    Args:
      complete: the language model.
      version: version of the model.
      index: the passages to retrieve from; None to answer without passages (closed book).
      passages: number of passages in the prompt.
    """
    self._complete, self._index, self._passages = complete, index, passages
    source = f'{index.version}-{passages}' if index else 'closed-book'
    self.version = f'{version}-{source}'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the answer. The page `context.title` is not used.

    Raises:
      ToolError: the argument is empty, no passage matches, or the model has no answer.
    """
    return call_one(self, argument, context)

  def call_many(
      self, arguments: Sequence[str], contexts: Sequence[Context]
  ) -> Sequence[str | ToolError]:
    """Returns for each argument its answer, or the ToolError that `__call__` would raise."""
    prompts = [self._prompt(calls.unquote(argument), context)
               for argument, context in zip(arguments, contexts, strict=True)]
    asked = [prompt for prompt in prompts if isinstance(prompt, str)]
    answers = iter(self._complete(asked) if asked else [])
    return [_answer(next(answers)) if isinstance(prompt, str) else prompt for prompt in prompts]

  def _prompt(self, question: str, context: Context) -> str | ToolError:
    if not question:
      return ToolError('no question')
    if self._index is None:
      return question_prompt(question, [])
    found = self._index.search(question, self._passages, exclude_title=context.title)
    if not found:
      return ToolError('no page matches')
    return question_prompt(question, [f'{passage.title} > {passage.text}' for passage in found])


def question_prompt(question: str, passages: Sequence[str]) -> str:
  """Returns a prompt that ends with the question. The best passage is the last one."""
  shown = [_block(question, [passage] if passages else []) + f' {answer}\n\n'
           for passage, question, answer in _EXAMPLES]
  return f'{_INSTRUCTION}\n\n{"".join(shown)}{_block(question, passages[::-1])}'


def _block(question: str, passages: Sequence[str]) -> str:
  lines = [f'Passage: {passage}\n' for passage in passages]
  return f'{"".join(lines)}Question: {question}\nAnswer:'


def _answer(completion: str) -> str | ToolError:
  """Returns the first words of a completion, or a ToolError if it is empty."""
  answer = ' '.join(completion.split()[:_MAX_WORDS])
  # The full stop of `D.C.` stays.
  if answer.endswith('.') and '.' not in answer.split()[-1][:-1]:
    answer = answer[:-1]
  return answer or ToolError('no answer')
