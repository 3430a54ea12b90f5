"""The demonstrations show what they should: removing the calls of an output gives its input."""

import pytest

from toolformer_jax.annotation.prompts import PROMPTS
from toolformer_jax.calls import DEFAULT_SYNTAX, CallSyntax
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.calculator import Calculator

DEMONSTRATIONS = {'calculator': 5, 'calendar': 5, 'wikisearch': 3}  # as many as in the paper


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
  text = prompt.before(DEFAULT_SYNTAX)
  assert text.endswith('Input:\n') and prompt.between() == '\nOutput:\n'
  for plain, output in prompt.pairs():
    assert f'Input:\n{plain}\nOutput:\n{output}\n\n' in text


def test_another_syntax_is_spelled_everywhere():
  syntax = CallSyntax(' <API>', ' =>', '</API>')
  text = PROMPTS['calculator'].before(syntax)
  assert ' <API>Calculator(145 + 230)</API> 375' in text and '[' not in text


def test_the_calculator_gives_the_number_that_a_demonstration_states():
  for _, output in PROMPTS['calculator'].pairs():
    for span in DEFAULT_SYNTAX.find(output, {'Calculator'}):
      result = Calculator()(span.call.argument, Context())
      stated = output[span.end:].strip().lstrip('$')
      assert stated.startswith((result, result.removesuffix('.00')))
