"""A plain function is a tool."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import Context
from toolformer_jax.tools.function import tool


@given(st.text())
def test_decorated_function_is_a_tool(argument):
  @tool
  def Reverse(argument):  # noqa: N802, the name is the call's
    return argument[::-1]

  assert (Reverse.name, Reverse.version) == ('Reverse', '1')
  assert Reverse(argument, Context()) == argument[::-1]


def test_decorator_takes_name_and_version_and_passes_the_context():
  @tool(name='Title', version='2')
  def page_title(argument, context):
    return f'{argument}: {context.title}'

  assert (page_title.name, page_title.version) == ('Title', '2')
  assert page_title('page', Context(title='Song')) == 'page: Song'


@pytest.mark.parametrize('name', ['no-dash', 'no blank', '1st', 'a(b'])
def test_a_name_that_no_call_can_have_is_refused(name):
  with pytest.raises(UserError, match='cannot be written'):
    tool(str.upper, name=name)


def test_what_the_function_raises_is_raised():
  @tool
  def broken(argument):
    return {}[argument]

  with pytest.raises(KeyError, match='x'):
    broken('x', Context())
