"""The demonstrations show what they should: removing the calls of an output gives its input."""

import pathlib
import re

import pytest

from toolformer_jax.annotation.prompts import PROMPTS, prompt_for
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.config.loading import load
from toolformer_jax.data.numbers import number_at, parse_number
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.calculator import Calculator

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
DEMONSTRATIONS = {  # as many as in the paper
    'calculator': 5, 'calendar': 5, 'mt': 3, 'qa': 2, 'wikisearch': 3,
    'frames': 3, 'ocr': 3, 'recognize': 3, 'speak': 2, 'transcribe': 3}  # and not in the paper


# Appendix A.2: what is asked, and the words that stand after the call.
FACTS = {
    'calculator': [
        ('18 + 12 * 3', '54'), ('658,893 / 11.4%', '5,763,868'), ('723 / 252', '2.87'),
        ('723 - 20', '703'), ('2011 - 1994', '17 years'), ('4 * 30', '120 minutes')],
    'calendar': [('', word) for word in (
        'Friday', 'Joe Biden', 'Wednesday', '30', 'it is closed')],
    'mt': [
        ('O homem suprimido', '('), ('der klassische jüdische Mann', ','),
        ('高淳县位于南京市最南端', 'Gaochun')],
    'qa': [
        ('"Where was Joe Biden born?"', 'Scranton'),
        ('"In which state is Scranton?"', 'Pennsylvania'),
        ('"What other name is Coca-Cola known by?"', 'Coke'),
        ('"Who manufactures Coca-Cola?"', 'the Coca-Cola Company')],
    'wikisearch': [
        ('"Ghana flag red meaning"', 'the blood'),
        ('"nanomaterial production risks"', 'Some'),
        ('"Metformin first-line drug"', 'people with type 2 diabetes')]}


def without_calls(output, spans):
  for span in reversed(spans):  # by hand: what spells the call is cut out of the text
    output = output[:span.start] + output[span.end:]
  return output


@pytest.mark.parametrize('name', PROMPTS)
def test_removing_the_calls_of_an_output_gives_its_input(name):
  prompt = PROMPTS[name]
  pairs = prompt.pairs()[:-1] if name == 'mt' else prompt.pairs()
  assert len(prompt.pairs()) == DEMONSTRATIONS[name]
  for plain, output in pairs:
    spans = DEFAULT_SYNTAX.find(output, {prompt.tool})
    assert spans
    assert without_calls(output, spans) == plain
    assert '[' not in plain and '  ' not in plain
    assert all(span.call.result is None for span in spans)


def test_the_last_translation_stands_in_the_place_of_its_text():
  plain, output = PROMPTS['mt'].pairs()[-1]
  [span] = DEFAULT_SYNTAX.find(output, {'MT'})
  assert output[:span.start] + ' ' + span.call.argument + output[span.end:] == plain


@pytest.mark.parametrize('name', FACTS)
def test_demonstrations_have_the_facts_of_the_paper(name):
  prompt, found = PROMPTS[name], []
  for _, output in prompt.pairs():
    found += [(span.call.argument, output[span.end:].lstrip())
              for span in DEFAULT_SYNTAX.find(output, {prompt.tool})]
  assert len(found) == len(FACTS[name])
  for (argument, after), (expected, words) in zip(found, FACTS[name], strict=True):
    assert argument == expected and after.startswith(words)


@pytest.mark.parametrize('name', PROMPTS)
def test_a_prompt_ends_where_the_text_begins(name):
  prompt = PROMPTS[name]
  text = prompt.text_before_input(DEFAULT_SYNTAX)
  assert text.endswith('Input:\n') and prompt.text_before_output() == '\nOutput:\n'
  for plain, output in prompt.pairs():
    assert f'Input:\n{plain}\nOutput:\n{output}\n\n' in text


def test_another_syntax_is_spelled_everywhere():
  syntax = CallSyntax(' <API>', ' =>', '</API>')
  text = PROMPTS['calculator'].text_before_input(syntax)
  assert ' <API>Calculator(4 * 30)</API> 120' in text and '[' not in text


def stated_and_computed(prompt):
  for _, output in prompt.pairs():
    for span in DEFAULT_SYNTAX.find(output, {'Calculator'}):
      stated = number_at(output, span.end).value
      yield span.call.argument, stated, parse_number(Calculator()(span.call.argument, Context()))


def test_the_calculator_gives_the_number_that_a_demonstration_states():
  wrong = {argument for argument, stated, computed in stated_and_computed(PROMPTS['calculator'])
           if stated != computed}
  assert wrong == {'658,893 / 11.4%'}  # the paper's own number


@pytest.mark.parametrize('file', ['word_problems.txt', 'answers.txt', 'gsm8k.txt'])
def test_the_calculator_gives_the_numbers_of_the_other_prompts(file):
  prompt = prompt_for('Calculator', str(CONFIGS / 'prompts' / file))
  assert all(stated == computed for _, stated, computed in stated_and_computed(prompt))


def test_the_quickstart_has_word_problems():
  config = load([CONFIGS / 'quickstart.gin'])
  prompt = prompt_for('Calculator', config.tool_config('calculator').prompt)
  assert all('?' in plain for plain, _ in prompt.pairs())
  assert not any('?' in plain for plain, _ in PROMPTS['calculator'].pairs())
  for operation in '+-*/':
    assert any(f' {operation} ' in with_calls for _, with_calls in prompt.pairs())


def test_a_prompt_is_read_from_paragraphs(tmp_path):
  file = tmp_path / 'upper.txt'
  file.write_text('Write calls\nto Upper.\n\n\na cat [Upper(cat)] CAT\n \nno [Upper(dog)] DOG.\n')
  prompt = prompt_for('Upper', str(file))
  assert prompt.instruction == 'Write calls to Upper.'
  assert prompt.pairs() == [('a cat CAT', 'a cat [Upper(cat)] CAT'),
                            ('no DOG.', 'no [Upper(dog)] DOG.')]
  assert prompt_for('QA') is PROMPTS['qa']


def test_a_paragraph_may_state_input_and_output(tmp_path):
  file = tmp_path / 'upper.txt'
  file.write_text('Do.\n\nInput: a cat\nOutput: a [Upper(cat)] CAT\n\nno [Upper(dog)] DOG')
  assert prompt_for('Upper', str(file)).pairs() == [
      ('a cat', 'a [Upper(cat)] CAT'), ('no DOG', 'no [Upper(dog)] DOG')]


@pytest.mark.parametrize('text', [
    'Do.\n\nInput: a cat\nOutput: a [Upper(cat)] CAT\n\nInput: no\n\nOutput: no [Upper(dog)] DOG',
    # As in the paper: no blank lines, and the text to annotate at the end.
    'Do.\nInput: a cat\nOutput: a [Upper(cat)] CAT\nInput: no\nOutput: no [Upper(dog)] DOG\n'
    'Input: x\nOutput:',
    'Do.\n\nInput: a cat\nOutput: a [Upper(cat)] CAT\n\nInput: no Output: no [Upper(dog)] DOG\n\n'
    'Input:',
])
def test_inputs_and_outputs_are_read_however_they_are_set(tmp_path, text):
  file = tmp_path / 'upper.txt'
  file.write_text(text)
  prompt = prompt_for('Upper', str(file))
  assert prompt.instruction == 'Do.'
  assert prompt.pairs() == [('a cat', 'a [Upper(cat)] CAT'), ('no', 'no [Upper(dog)] DOG')]


@pytest.mark.parametrize(('text', 'message'), [
    ('only an instruction', 'has no demonstration; write an instruction'),
    ('an instruction\n\na cat [Lower(cat)] CAT', r'demonstration 1 has no call to Upper; write it'),
    (None, 'cannot read the prompt'),
])
def test_what_is_no_prompt_is_refused(tmp_path, text, message):
  file = tmp_path / 'upper.txt'
  if text is not None:
    file.write_text(text)
  with pytest.raises(UserError, match=message):
    prompt_for('Upper', str(file))
  with pytest.raises(UserError, match='there is no prompt for the tool Upper'):
    prompt_for('Upper')


@pytest.mark.parametrize('name, kind', [
    ('ocr', 'image'), ('recognize', 'image'), ('transcribe', 'audio'), ('frames', 'video')])
def test_a_call_names_a_medium_that_the_text_has_mentioned(name, kind):
  for _, output in PROMPTS[name].pairs():
    for span in DEFAULT_SYNTAX.find(output, {PROMPTS[name].tool}):
      assert re.fullmatch(rf'{kind} \d', span.call.argument)
      assert span.call.argument in output[:span.start]
