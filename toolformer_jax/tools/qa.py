"""Question answering (paper, section 3): passages of an encyclopedia, and a model that reads them.

The paper's tool is Atlas. This one retrieves passages by BM25 and lets any language model read
them, by a few examples in its prompt; answers are short spans.
"""

from collections.abc import Sequence

from toolformer_jax import calls
from toolformer_jax.tools.base import Complete, Context, ToolError, call_one
from toolformer_jax.tools.passage_index import PassageIndex

_INSTRUCTION = 'Answer each question with a few words.'
# Short passages of our own: a reader learns the form from them, and nothing else.
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
  """Answers a question in a few words."""

  name = 'QA'
  batch = 8
  time_limit_s = 600.0  # a model may have to be compiled, and wait for another one's turn

  def __init__(self, complete: Complete, version: str, index: PassageIndex | None,
               passages: int = 1):
    """Reads `passages` passages of `index` by `complete`; without an index, it knows by heart.

    `version` is that of the model.
    """
    self._complete, self._index, self._passages = complete, index, passages
    source = f'{index.version}-{passages}' if index else 'closed-book'
    self.version = f'{version}-{source}'

  def __call__(self, argument: str, context: Context) -> str:
    """Returns the answer, never read from the page `context.title` itself.

    Raises:
      ToolError: there is no question, nothing is found to read, or the model has no answer.
    """
    return call_one(self, argument, context)

  def call_many(
      self, arguments: Sequence[str], contexts: Sequence[Context]
  ) -> Sequence[str | ToolError]:
    """Returns the answer to each argument, or the ToolError of `__call__`."""
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
    found = self._index.best(question, self._passages, but_title=context.title)
    if not found:
      return ToolError('no page matches')
    return question_prompt(question, [f'{passage.title} > {passage.text}' for passage in found])


def question_prompt(question: str, passages: Sequence[str]) -> str:
  """Returns the prompt whose last line the answer completes; the best passage stands last."""
  shown = [_block(question, [passage] if passages else []) + f' {answer}\n\n'
           for passage, question, answer in _EXAMPLES]
  return f'{_INSTRUCTION}\n\n{"".join(shown)}{_block(question, passages[::-1])}'


def _block(question: str, passages: Sequence[str]) -> str:
  lines = [f'Passage: {passage}\n' for passage in passages]
  return f'{"".join(lines)}Question: {question}\nAnswer:'


def _answer(completion: str) -> str | ToolError:
  """Returns the first words of a completion; ToolError if there are none."""
  answer = ' '.join(completion.split()[:_MAX_WORDS])
  if answer.endswith('.') and '.' not in answer.split()[-1][:-1]:  # not that of `D.C.`
    answer = answer[:-1]
  return answer or ToolError('no answer')
