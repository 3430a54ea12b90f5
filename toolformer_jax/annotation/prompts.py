"""The few-shot prompts from which calls are sampled (paper, appendix A.2: structure, not wording).

A prompt is an instruction and demonstrations, each a text and the same text with calls in it; the
calls carry no results. The text to annotate stands in it twice: as the input, and as the output
that the model is about to write. Both stand on lines of their own, so that the text's tokens are
the same as when it stands alone.
"""

from dataclasses import dataclass

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax

_INPUT, _OUTPUT = 'Input:\n', '\nOutput:\n'


@dataclass(frozen=True)
class Prompt:
  """The prompt of one tool.

  Attributes:
    tool: the tool's name as calls spell it.
    instruction: what the model is told.
    demonstrations: texts with calls, in the default syntax.
  """

  tool: str
  instruction: str
  demonstrations: tuple[str, ...]

  def pairs(self) -> list[tuple[str, str]]:
    """Returns for each demonstration the text without and with calls."""
    return [(DEFAULT_SYNTAX.remove(text, {self.tool}), text) for text in self.demonstrations]

  def before(self, syntax: CallSyntax) -> str:
    """Returns everything before the text to annotate, with calls spelled in `syntax`."""
    shown = [f'{_INPUT}{plain}{_OUTPUT}{_respell(text, self.tool, syntax)}\n\n'
             for plain, text in self.pairs()]
    return f'{_respell(self.instruction, self.tool, syntax)}\n\n{"".join(shown)}{_INPUT}'

  def between(self) -> str:
    """Returns what stands between the text and the output that repeats it."""
    return _OUTPUT


def _respell(text: str, tool: str, syntax: CallSyntax) -> str:
  """Returns `text` with its calls spelled in `syntax` instead of the default one."""
  pieces, at = [], 0
  for span in DEFAULT_SYNTAX.find(text, {tool}):
    pieces += [text[at:span.start], syntax.request(span.call)]
    at = span.end
  return ''.join(pieces) + text[at:]


CALCULATOR = Prompt(
    'Calculator',
    'Your task is to add calls to a Calculator to a piece of text. A call should work out a number '
    'that the text is about to state. You make a call by writing [Calculator(expression)], where '
    'expression is what to compute, built from the numbers that the text has already given. Here '
    'are some examples of calls:',
    (
        'A bakery sells bread for 4 dollars and cakes for 12 dollars. On Monday it sold 18 loaves '
        'of bread and 3 cakes. How much did it earn? The bread brought in [Calculator(18 * 4)] 72 '
        'dollars. The cakes brought in [Calculator(3 * 12)] 36 dollars. So the bakery earned'
        ' [Calculator(72 + 36)] 108 dollars on Monday.',
        'A town has 8,400 inhabitants, and 15% of them are students. There are'
        ' [Calculator(8,400 * 15%)] 1,260 students in the town. The other'
        ' [Calculator(8,400 - 1,260)] 7,140 people are not students.',
        'The pump filled 723 barrels in 252 hours, which is [Calculator(723 / 252)] 2.87 barrels an '
        'hour. Then 20 barrels leaked, so that [Calculator(723 - 20)] 703 barrels were left.',
        'Her first novel came out in 1994 and the second one in 2011. She had worked on it for'
        ' [Calculator(2011 - 1994)] 17 years.',
        'Four friends walked the dog for 30 minutes each, and then Ann walked it for 15 minutes. '
        'How long did the dog walk? With the friends it walked for [Calculator(4 * 30)] 120 '
        'minutes. With Ann that makes [Calculator(120 + 15)] 135 minutes.',
    ))

WIKISEARCH = Prompt(
    'WikiSearch',
    'Your task is to complete a given piece of text. You may look things up in Wikipedia by '
    'writing [WikiSearch(term)], where term is what you want to look up: the names and words that '
    'lead to the fact which the text states next. Here are some examples of calls:',
    (
        'The three colours of the flag of Ghana have a meaning of their own: red stands for'
        ' [WikiSearch("Ghana flag red meaning")] the blood of those who died for independence, '
        'gold for the wealth of the land and green for its forests.',
        'What are the dangers when nanomaterials are made? [WikiSearch("nanomaterial production '
        'risks")] Some of the particles can get into the lungs of the workers, and little is known '
        'about what they do there.',
        'Metformin is the first drug that doctors choose for'
        ' [WikiSearch("Metformin first-line drug")] people with type 2 diabetes, above all for '
        'those who are overweight.',
    ))

CALENDAR = Prompt(
    'Calendar',
    'Your task is to add calls to a Calendar to a piece of text. A call should tell the date of '
    'today where the text needs it to go on. You make a call by writing [Calendar()]. Here are '
    'some examples of calls:',
    (
        'Today is the first [Calendar()] Friday of the year, and the market opens at nine.',
        'The president of the United States at the moment is [Calendar()] Joe Biden.',
        'The day of the week on which I write this is [Calendar()] Wednesday.',
        'There are [Calendar()] 30 days left until Christmas, so order in good time.',
        'The shop is shut at weekends, and so [Calendar()] it is closed today.',
    ))

PROMPTS = {prompt.tool.lower(): prompt for prompt in (CALCULATOR, WIKISEARCH, CALENDAR)}
