"""Personal data is masked where it is asked for, and nothing else."""

import pytest

from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.redaction import redacted_tool, redactor
from toolformer_jax.tools.base import BatchTool, Context
from toolformer_jax.tools.function import tool

EVERYTHING = ServingConfig(redact=('numbers', 'addresses'),
                           redact_names=('Ann', 'Ann Lee', 'Ann L.'))


@pytest.mark.parametrize(('text', 'expected'), [
    ('call 0171-2345678 now', 'call <number> now'), ('12/31/1999', '<number>'),
    ('4111 1111 1111 1111', '<number>'), ('a.b+c@mail.example.org!', '<address>!'),
    ('see https://x.org/a?b=1 and www.y.org', 'see <address> and <address>'),
    ('at 192.168.0.12', 'at <address>'), ('at fe80::1:2ab', 'at <address>'),
    ('ANN LEE and ann', '<name> and <name>'), ('Annex 7, 12 and 100', 'Annex 7, 12 and 100'),
    ('ann@lee.example and ann', '<address> and <name>'),
    ('Ann L. said, Ann L., McAnn', '<name> said, <name>, McAnn')])
def test_what_is_personal_is_masked(text, expected):
  assert redactor(EVERYTHING)(text) == expected


def test_nothing_is_masked_by_default():
  text = 'Ann, ann@x.org, 0171 2345678'
  assert redactor(ServingConfig())(text) == text
  assert redactor(ServingConfig(redact=('addresses',)))(text) == 'Ann, <address>, 0171 2345678'


def test_long_texts_take_no_long_time():
  for text in ('a' * 10**5, 'a@' * 10**5, '1' * 10**5, 'a:' * 10**5, 'a.' * 10**5):
    redactor(EVERYTHING)(text)


def test_tools_get_masked_arguments():
  seen = []
  class Many:
    name, version, batch = 'Many', '1', 4
    def __call__(self, argument, context):
      return self.call_many([argument], [context])[0]
    def call_many(self, arguments, contexts):
      seen.extend(arguments)
      return ['x'] * len(arguments)
  one = redacted_tool(tool(lambda argument: seen.append(argument) or 'x', name='One'),
                      redactor(EVERYTHING))
  many = redacted_tool(Many(), redactor(EVERYTHING))
  assert one('Ann', Context()) == 'x' and not isinstance(one, BatchTool)
  assert many.call_many(['Ann', 'Bob'], [Context()] * 2) == ['x', 'x']
  assert isinstance(many, BatchTool) and seen == ['<name>', '<name>', 'Bob']
