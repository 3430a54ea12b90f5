"""A server with several adapters: a request chooses one by its name, as the model."""

import dataclasses

import jax
import numpy as np
import openai
import pytest

from toolformer_jax.commands.serve import _by_name
from toolformer_jax.errors import UserError
from toolformer_jax.inference.config import GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.models.adapter_config import LoraConfig
from toolformer_jax.models.adapter_merging import merge_adapter
from toolformer_jax.models.adapter_stack import stack_adapters
from toolformer_jax.models.adapters import ADAPTER
from toolformer_jax.training.adapters import add_adapter
from toolformer_jax.training.config import FinetuneConfig

CHAT = [{'role': 'user', 'content': 'ab is'}]


@pytest.fixture(scope='module')
def alone(taught):
  """The model with each of two adapters."""
  tuned = {}
  for seed, name in enumerate(('first', 'second')):
    config = LoraConfig(rank=2 + seed)
    model, rng = add_adapter(taught, FinetuneConfig(adapter=config)), np.random.default_rng(seed)
    weights = jax.tree.map(
        lambda x, rng=rng: jax.device_put(
            (x + rng.normal(0, 0.3, x.shape)).astype(np.float32), x.sharding),
        model.variables[ADAPTER])
    tuned[name] = dataclasses.replace(model, variables=model.variables | {ADAPTER: weights})
  return tuned


@pytest.fixture(scope='module')
def server(running, taught, alone):
  with running(stack_adapters(taught, alone)) as started:
    yield started


@pytest.fixture(scope='module')
def client(server):
  return server.client()


def test_models_lists_adapters_with_their_parent(client):
  listed = client.models.list().data
  assert [(model.id, model.parent) for model in listed] == [
      ('tiny', None), ('first', 'tiny'), ('second', 'tiny')]
  assert client.models.retrieve('second').parent == 'tiny'


@pytest.mark.parametrize('name', ['tiny', 'first', 'second'])
def test_the_answer_and_its_logprobs_are_the_adapters(client, taught, alone, name):
  merged = merge_adapter(alone[name]) if name in alone else taught
  whole = client.completions.create(model=name, prompt='ab is', max_tokens=6, logprobs=0, echo=True,
                                    extra_body={'allowed_tools': []})
  assert whole.model == name
  choice = whole.choices[0]
  prompt = taught.tokenizer.encode('ab is')
  made, = generate(merged, [prompt], config=GenerationConfig(max_tokens=6, disable_tools=True))
  assert choice.text == 'ab is' + made.text
  ids = [taught.tokenizer.start_id, *prompt, *made.token_ids]
  ours = np.array(choice.logprobs.token_logprobs)
  np.testing.assert_allclose(ours, _logprobs(merged, ids)[:len(ours)], atol=1e-4)
  assert len(ours) > len('ab is')


def _logprobs(model, ids):
  logits = np.asarray(model.decoder.apply(model.variables, np.array([ids]))[0][0], np.float64)
  logits -= logits.max(-1, keepdims=True)
  logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return logprobs[np.arange(len(ids) - 1), ids[1:]]


def test_chats_and_responses_take_an_adapter_too(client):
  texts = {name: client.completions.create(
      model=name, prompt='User: ab is\nAssistant:', max_tokens=6, stop=['\nUser:']).choices[0].text
           for name in ('tiny', 'first', 'second')}
  assert len({*texts.values()}) > 1
  for name, text in texts.items():
    chat = client.chat.completions.create(model=name, messages=CHAT, max_tokens=6)
    assert (chat.model, chat.choices[0].message.content) == (name, text)
    response = client.responses.create(model=name, input='ab is', max_output_tokens=6)
    assert (response.model, response.output_text) == (name, text)


def test_a_name_that_is_not_there_is_404(client):
  with pytest.raises(openai.NotFoundError, match="'tiny', 'first', 'second'"):
    client.completions.create(model='third', prompt='ab is')


def test_options_name_the_adapters():
  assert _by_name([]) == (None, {})
  assert _by_name(['runs/a']) == ('runs/a', {})
  assert _by_name(['runs/rate=3']) == ('runs/rate=3', {})
  with pytest.raises(UserError, match='NAME=runs/a'):
    _by_name(['runs/a', 'b=runs/b'])
  with pytest.raises(UserError, match='no such folder'):
    _by_name(['a=nowhere', 'b=nowhere'])


def test_no_name_is_given_twice(tmp_path):
  (tmp_path / 'adapter_config.json').write_text('{}')
  assert _by_name([f'a={tmp_path}', f'b={tmp_path}']) == (
      None, {'a': str(tmp_path), 'b': str(tmp_path)})
  with pytest.raises(UserError, match='another a already'):
    _by_name([f'a={tmp_path}', f'a={tmp_path}'])
