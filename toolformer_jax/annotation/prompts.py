"""The few-shot prompts from which calls are sampled (paper, appendix A.2).

The structure is the paper's, the wording is not. A prompt has an instruction and demonstrations: a
text as the input, and as the output the same text with calls, which have no results. After the
demonstrations comes the text to annotate, again as the input and as the output. It begins on a new
line in both places, so that it has the same tokens as by itself.
"""

import pathlib
import re
from dataclasses import dataclass

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.errors import UserError

_INPUT, _OUTPUT = 'Input:\n', '\nOutput:\n'


@dataclass(frozen=True)
class Prompt:
  """The prompt of one tool.

  Attributes:
    tool: the tool's name, spelled as in calls.
    instruction: the task, in words.
    demonstrations: texts with calls, in the default syntax.
  """

  tool: str
  instruction: str
  demonstrations: tuple[str, ...]

  def pairs(self) -> list[tuple[str, str]]:
    """Returns the text of each demonstration, without and with calls."""
    return [(DEFAULT_SYNTAX.remove(text, {self.tool}), text) for text in self.demonstrations]

  def text_before_input(self, syntax: CallSyntax) -> str:
    """Returns the part of the prompt before the text to annotate, with calls in `syntax`."""
    shown = [f'{_INPUT}{plain}{_OUTPUT}{_respell(text, self.tool, syntax)}\n\n'
             for plain, text in self.pairs()]
    return f'{_respell(self.instruction, self.tool, syntax)}\n\n{"".join(shown)}{_INPUT}'

  def text_before_output(self) -> str:
    """Returns the part of the prompt between the text to annotate and its repetition."""
    return _OUTPUT


def prompt_for(tool: str, file: str = '') -> Prompt:
  """Returns the prompt in `file`; without a file, the package's prompt for `tool`.

  Raises:
    UserError: the file is no prompt for this tool, or the package has none for it.
  """
  if file:
    return read_prompt(tool, pathlib.Path(file))
  if tool.lower() not in PROMPTS:
    raise UserError(f'there is no prompt for the tool {tool}; write one to a file, and set '
                    f'{tool.lower()}/ToolConfig.prompt to the path of the file')
  return PROMPTS[tool.lower()]


def read_prompt(tool: str, path: pathlib.Path) -> Prompt:
  """Reads a prompt for `tool` from a text file: paragraphs separated by blank lines.

  The first paragraph is the instruction. The others are demonstrations, with calls as
  ` [Name(argument)]`.

  Raises:
    UserError: the file cannot be read, or a demonstration has no call to the tool.
  """
  try:
    paragraphs = re.split(r'\n\s*\n', path.read_text('utf-8').strip())
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f'cannot read the prompt {path}: {error}') from error
  instruction, *demonstrations = (' '.join(paragraph.split()) for paragraph in paragraphs)
  if not demonstrations:
    raise UserError(f'{path} has no demonstration; write an instruction, and after blank lines '
                    'texts with calls')
  for number, text in enumerate(demonstrations, 1):
    if not DEFAULT_SYNTAX.find(text, {tool}):
      raise UserError(f'{path}: demonstration {number} has no call to {tool}; write it as '
                      f'[{tool}(argument)], after a space')
  return Prompt(tool, instruction, tuple(demonstrations))


def _respell(text: str, tool: str, syntax: CallSyntax) -> str:
  """Returns `text` with its calls, which are in the default syntax, written in `syntax`."""
  pieces, at = [], 0
  for span in DEFAULT_SYNTAX.find(text, {tool}):
    pieces += [text[at:span.start], syntax.request(span.call)]
    at = span.end
  return ''.join(pieces) + text[at:]


CALCULATOR = Prompt(
    'Calculator',
    'Your task is to add calls to a Calculator to a piece of text. You make a call by writing'
    ' [Calculator(expression)] right before a number that follows from numbers earlier in the text;'
    ' expression is how to compute it. Here are some examples:',
    (
        'Eva picks 145 plums in May. Then she picks 230 plums in June. In July, she picks 3 times '
        'as many plums as in May. How many plums does she have? In May and June she picks'
        ' [Calculator(145 + 230)] 375 plums. In July she picks [Calculator(145 * 3)] 435 plums. In '
        'all she has [Calculator(375 + 435)] 810 plums.',
        'Ben ran half of a 318 mile trail, and then all of a 140 mile trail in a month. How many '
        'miles did Ben run that month? Ben ran [Calculator(318 / 2)] 159 miles. Ben ran'
        ' [Calculator(159 + 140)] 299 miles.',
        'Ann has 24 rows of roses. There are 15 roses per row. Ann can cut her roses every 2 '
        'months. How many roses can Ann cut within a year? Ann has [Calculator(24 * 15)] 360 roses.'
        ' Ann can cut her roses [Calculator(12 / 2)] 6 times per year. So Ann can cut'
        ' [Calculator(360 * 6)] 2160 roses per year.',
        'Paul has $46.50 and buys 31 pens. Each pen costs $0.50. How much money does Paul have '
        'left? Paul paid [Calculator(31 * 0.50)] $15.50 for the pens. Paul has'
        ' [Calculator(46.50 - 15.50)] $31 left.',
        'Each box can hold 25 eggs. If Tim has 190 eggs and 7 boxes, how many eggs will not fit? '
        'Tim can put a total of [Calculator(7 * 25)] 175 eggs into the boxes. So'
        ' [Calculator(190 - 175)] 15 eggs will not fit.',
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

QA = Prompt(
    'QA',
    'Your task is to add calls to a Question Answering system to a piece of text. The questions '
    'should help you to get information that the text needs to go on. You make a call by writing'
    ' [QA("question")], where question is what you want to ask. Here are some examples of calls:',
    (
        'Joe Biden was born in [QA("Where was Joe Biden born?")] Scranton, a city in'
        ' [QA("In which state is Scranton?")] Pennsylvania.',
        'Coca-Cola, which is also called [QA("What other name is Coca-Cola known by?")] Coke, is a '
        'soft drink that is made by [QA("Who manufactures Coca-Cola?")] the Coca-Cola Company.',
    ))

MT = Prompt(
    'MT',
    'Your task is to complete a given piece of text. You may translate what is not in English by '
    'writing [MT(text)], where text is what should be translated into English. Here are some '
    'examples of calls:',
    (
        'In 1960 he published a book with the title O homem suprimido [MT(O homem suprimido)] '
        '(The Suppressed Man), which was soon forbidden.',
        'Her study of 1997, Der klassische jüdische Mann [MT(Der klassische jüdische Mann)] or The '
        'Classical Jewish Man, was the first of its kind.',
        'The county has a name for its crabs: 高淳县位于南京市最南端 [MT(高淳县位于南京市最南端)], '
        'says the sign, Gaochun County lies in the far south of the city of Nanjing.',
    ))

PROMPTS = {prompt.tool.lower(): prompt for prompt in (CALCULATOR, CALENDAR, MT, QA, WIKISEARCH)}
