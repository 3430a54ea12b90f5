"""The demonstrations show what they should: removing the calls of an output gives its input."""

import pytest

from toolformer_jax.annotation.prompts import PROMPTS, prompt_for
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.calculator import Calculator

DEMONSTRATIONS = {  # as many as in the paper
    'calculator': 5, 'calendar': 5, 'mt': 3, 'qa': 2, 'wikisearch': 3}


@pytest.mark.parametrize('name', PROMPTS)
def test_removing_the_calls_of_an_output_gives_its_input(name):
  prompt = PROMPTS[name]
  assert len(prompt.pairs()) == DEMONSTRATIONS[name]
  for plain, output in prompt.pairs():
    spans = DEFAULT_SYNTAX.find(output, {prompt.tool})
    assert spans
    removed = output
    for span in reversed(spans):  # by hand: what spells the call is cut out of the text
      removed = removed[:span.start] + removed[span.end:]
    assert removed == plain
    assert '[' not in plain and '  ' not in plain
    assert all(span.call.result is None for span in spans)


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
  assert ' <API>Calculator(145 + 230)</API> 375' in text and '[' not in text


def test_the_calculator_gives_the_number_that_a_demonstration_states():
  for _, output in PROMPTS['calculator'].pairs():
    for span in DEFAULT_SYNTAX.find(output, {'Calculator'}):
      result = Calculator()(span.call.argument, Context())
      stated = output[span.end:].strip().lstrip('$')
      assert stated.startswith((result, result.removesuffix('.00')))


def test_a_prompt_is_read_from_paragraphs(tmp_path):
  file = tmp_path / 'upper.txt'
  file.write_text('Write calls\nto Upper.\n\n\na cat [Upper(cat)] CAT\n \nno [Upper(dog)] DOG.\n')
  prompt = prompt_for('Upper', str(file))
  assert prompt.instruction == 'Write calls to Upper.'
  assert prompt.pairs() == [('a cat CAT', 'a cat [Upper(cat)] CAT'),
                            ('no DOG.', 'no [Upper(dog)] DOG.')]
  assert prompt_for('QA') is PROMPTS['qa']


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
