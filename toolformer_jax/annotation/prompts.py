"""The few-shot prompts from which calls are sampled (paper, appendix A.2).

The structure and the facts of the paper's tools are the paper's, the wording is not. A prompt has
an instruction and demonstrations: a text as the input, and as the output the same text with calls,
which have no results. After the demonstrations comes the text to annotate, again as the input and
as the output. It begins on a new line in both places, so that it has the same tokens as by itself.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from etils import epath

from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path, storage_errors

_INPUT, _OUTPUT = 'Input:\n', '\nOutput:\n'
_BOTH = re.compile(r'Input: (.+?) Output: (.+)')
_TEMPLATE = re.compile(r'Input:( \S+)?( Output:)?')  # `Input: x Output:` in the paper


@dataclass(frozen=True)
class Prompt:
  """The prompt of one tool.

  Attributes:
    tool: the tool's name, spelled as in calls.
    instruction: the task, in words.
    demonstrations: texts with calls, in the default syntax; a pair of the text without calls and
      the text with calls where they differ in more than the calls.
  """

  tool: str
  instruction: str
  demonstrations: tuple[str | tuple[str, str], ...]

  def pairs(self) -> list[tuple[str, str]]:
    """Returns the text of each demonstration, without and with calls."""
    return [(DEFAULT_SYNTAX.remove(text, {self.tool}), text) if isinstance(text, str) else text
            for text in self.demonstrations]

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
    return read_prompt(tool, as_path(file))
  if tool.lower() not in PROMPTS:
    raise UserError(f'there is no prompt for the tool {tool}; write one to a file, and set '
                    f'{tool.lower()}/ToolConfig.prompt to the path of the file')
  return PROMPTS[tool.lower()]


def read_prompt(tool: str, path: epath.Path) -> Prompt:
  """Reads a prompt for `tool` from a text file: paragraphs separated by blank lines.

  The first paragraph is the instruction. The others are demonstrations, with calls as
  ` [Name(argument)]`, or both texts as `Input: text` and `Output: text with calls`, in one or two
  paragraphs; a line with `Input:` begins one. An empty `Output:` at the end, as in the paper, is
  that of the text to annotate, and left out.

  Raises:
    UserError: the file cannot be read, or a demonstration has no call to the tool.
  """
  try:
    text = re.sub(r'\n(?=Input:)', '\n\n', path.read_bytes().decode().strip())
    paragraphs = re.split(r'\n\s*\n', text)
  except (OSError, UnicodeDecodeError) + storage_errors() as error:
    raise UserError(f'cannot read the prompt {path}: {error}') from error
  instruction, *demonstrations = _joined(' '.join(paragraph.split()) for paragraph in paragraphs)
  if not demonstrations:
    raise UserError(f'{path} has no demonstration; write an instruction, and after blank lines '
                    'texts with calls')
  prompt = Prompt(tool, instruction, tuple(map(_demonstration, demonstrations)))
  for number, (_, text) in enumerate(prompt.pairs(), 1):
    if not DEFAULT_SYNTAX.find(text, {tool}):
      raise UserError(f'{path}: demonstration {number} has no call to {tool}; write it as '
                      f'[{tool}(argument)], after a space')
  return prompt


def _joined(paragraphs: Iterable[str]) -> list[str]:
  """Returns paragraphs with each `Output:` after its `Input:`, without a last one that is empty."""
  joined: list[str] = []
  for paragraph in paragraphs:
    if paragraph.startswith('Output:') and joined and joined[-1].startswith('Input:'):
      joined[-1] += f' {paragraph}'
    else:
      joined.append(paragraph)
  if len(joined) > 1 and _TEMPLATE.fullmatch(joined[-1]):
    joined.pop()
  return joined


def _demonstration(paragraph: str) -> str | tuple[str, str]:
  """Returns the text of a paragraph, or both texts of `Input: text Output: text with calls`."""
  both = _BOTH.fullmatch(paragraph)
  return (both[1], both[2]) if both else paragraph


def _respell(text: str, tool: str, syntax: CallSyntax) -> str:
  """Returns `text` with its calls, which are in the default syntax, written in `syntax`."""
  pieces, at = [], 0
  for span in DEFAULT_SYNTAX.find(text, {tool}):
    pieces += [text[at:span.start], syntax.request(span.call)]
    at = span.end
  return ''.join(pieces) + text[at:]


# The paper states 5,763,868 in the second demonstration; the quotient is 5,779,763.16. Input and
# output of its third demonstration end in different sentences; here they do not.
CALCULATOR = Prompt(
    'Calculator',
    'Your task is to add calls to a Calculator to a piece of text. The calls should help you to '
    'get information that the text needs to go on. You make a call by writing'
    ' [Calculator(expression)], where expression is what should be computed. Here are some '
    'examples of calls:',
    (
        'For the fourth term we get 18 + 12 x 3, which is [Calculator(18 + 12 * 3)] 54.',
        'With 658,893 inhabitants the province has 11.4% of those of the whole country, which are'
        ' [Calculator(658,893 / 11.4%)] 5,763,868 people.',
        'In the qualifying round 723 goals were scored in 252 matches, an average of'
        ' [Calculator(723 / 252)] 2.87 a match. That is twenty goals more than last time, when'
        ' there were [Calculator(723 - 20)] 703 goals.',
        'She moved to Paris in 1994 and left the city in 2011, so that she lived there for'
        ' [Calculator(2011 - 1994)] 17 years.',
        'Each of the four lessons lasts 30 minutes. Together they take 4 * 30 minutes, that is'
        ' [Calculator(4 * 30)] 120 minutes.',
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
        'Her study of 1997 has the subtitle der klassische jüdische Mann [MT(der klassische '
        'jüdische Mann)], the classical Jewish man, and was the first of its kind.',
        # This call replaces the foreign text.
        ('A sign at the station is in Chinese. 高淳县位于南京市最南端 Gaochun County, it says, '
         'lies in the far south of the city of Nanjing.',
         'A sign at the station is in Chinese. [MT(高淳县位于南京市最南端)] Gaochun County, it '
         'says, lies in the far south of the city of Nanjing.'),
    ))

OCR = Prompt(
    'OCR',
    'Your task is to add calls to a Text Reader to a piece of text. It reads what is written in a '
    'picture, where the text needs it to go on. You make a call by writing [OCR(image 1)], where '
    'image 1 is the name of a picture that the text has mentioned. Here are some examples of '
    'calls:',
    (
        'We had lunch at the harbour. The bill (image 1) comes to [OCR(image 1)] 84.00, drinks '
        'included.',
        'At the gate there is a sign (image 1) with the words [OCR(image 1)] NO ENTRY AFTER DARK, '
        'so we turned back.',
        'Two labels came with the parcel (image 1, image 2). It was sent from Lisbon, and the '
        'second label gives its weight as [OCR(image 2)] 3.4 kg.',
    ))

RECOGNIZE = Prompt(
    'Recognize',
    'Your task is to add calls to a Picture Recognizer to a piece of text. It names what is to be '
    'seen in a picture, where the text needs it to go on. You make a call by writing '
    '[Recognize(image 1)], where image 1 is the name of a picture that the text has mentioned. '
    'Here are some examples of calls:',
    (
        'The photo on the cover (image 1) shows [Recognize(image 1)] a lighthouse, with the sea '
        'behind it.',
        'My sister sends me pictures of her garden. In the latest one (image 1) there is '
        '[Recognize(image 1)] a hedgehog under the roses.',
        'Of the two toys (image 1, image 2) the boy liked the second one best, which is '
        '[Recognize(image 2)] a fire engine.',
    ))

TRANSCRIBE = Prompt(
    'Transcribe',
    'Your task is to add calls to a Speech Recognizer to a piece of text. It writes down what is '
    'said in a recording, where the text needs it to go on. You make a call by writing '
    '[Transcribe(audio 1)], where audio 1 is the name of a recording that the text has mentioned. '
    'Here are some examples of calls:',
    (
        'There was a message on the phone (audio 1). A man said: [Transcribe(audio 1)] "The ferry '
        'leaves at noon."',
        'In the interview (audio 1) the mayor promises [Transcribe(audio 1)] two new schools.',
        'Of the two voices, the first one (audio 1) greets the guests, and the other one (audio 2) '
        'says [Transcribe(audio 2)] that dinner is ready.',
    ))

FRAMES = Prompt(
    'Frames',
    'Your task is to add calls to a Video Describer to a piece of text. It tells what is seen and '
    'said in a video, and when, where the text needs it to go on. You make a call by writing '
    '[Frames(video 1)], where video 1 is the name of a video that the text has mentioned. Here are '
    'some examples of calls:',
    (
        'The clip (video 1) begins with [Frames(video 1)] a tractor that crosses a field.',
        'In the lesson (video 1) the teacher says: [Frames(video 1)] "Now add the flour and stir."',
        'The film of the camera at the feeder (video 1) is short. After four seconds one sees '
        '[Frames(video 1)] a robin.',
    ))

SPEAK = Prompt(
    'Speak',
    'Your task is to add calls to a Speaker to a piece of text. It speaks a sentence into a sound, '
    'and tells the name of the sound. You make a call by writing [Speak(sentence)], where sentence '
    'is what should be heard. Here are some examples of calls:',
    (
        'The greeting "Welcome to the museum" can be heard in [Speak(Welcome to the museum)] '
        'audio 1.',
        'For those who would rather listen, the summary is read aloud: "Sales rose by a third." '
        '[Speak(Sales rose by a third.)] audio 1',
    ))

PROMPTS = {prompt.tool.lower(): prompt for prompt in (
    CALCULATOR, CALENDAR, MT, QA, WIKISEARCH, FRAMES, OCR, RECOGNIZE, SPEAK, TRANSCRIBE)}
