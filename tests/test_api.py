"""The public API: a small Toolformer in a notebook, without files, gin or argparse."""

import copy
import dataclasses
import gc
import inspect
import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import toolformer_jax as tf_jax
from toolformer_jax.annotation.prompts import CALCULATOR
from toolformer_jax.annotation.run_dir import RunFolder
from toolformer_jax.calls import CallSyntax
from toolformer_jax.checkpoints.orbax import save_model
from toolformer_jax.errors import UserError

TEXTS = ['Ann has 24 rows of 15 roses, that is 360 roses.', 'Two and two are four.',
         'Ben has 12 boxes of 30 pens, so 360 pens.']
FUNCTIONS = ('annotate', 'compress', 'evaluate', 'export', 'finetune', 'generate', 'load_model',
             'plan', 'pretrain', 'score', 'token_losses', 'with_adapter')
LORA = tf_jax.LoraConfig(rank=2)


@pytest.fixture(scope='module')
def model(make_eager_model):
  return make_eager_model(max_positions=8192)


@pytest.fixture(scope='module')
def annotated(model):
  prompt = tf_jax.Prompt('Echo', CALCULATOR.instruction.replace('Calculator', 'Echo'),
                         ('One is [Echo(1)] 1.',))
  return tf_jax.annotate(
      model, TEXTS, tools=['calculator', tf_jax.tool(lambda argument: 'x', name='Echo')],
      prompts={'echo': prompt},
      config=tf_jax.AnnotationConfig(force_name=True, max_text_tokens=60, max_call_tokens=6,
                                     temperature=3.0, preselect=False),
      tool_configs={name: tf_jax.ToolConfig(tau_s=0.0, k=3, m=4, tau_f=-10.0)
                    for name in ('calculator', 'echo')})


def annotate(model, texts, **arguments):
  """Annotates with the calculator alone, one sample for each text."""
  return tf_jax.annotate(
      model, texts,
      config=tf_jax.AnnotationConfig(force_name=True, max_text_tokens=60, max_call_tokens=6),
      **{'tools': 'calculator',
         'tool_configs': {'calculator': tf_jax.ToolConfig(tau_s=0.0, k=1, m=1)}, **arguments})


def test_a_whole_toolformer_in_memory(model, annotated, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  assert len(annotated.documents) == 3 and annotated.complete and annotated.output_dir is None
  assert annotated.annotated and {call.tool for record in annotated.annotated
                                  for call in record.calls} <= {'Calculator', 'Echo'}
  assert set(annotated.tool_summaries) == {'Calculator', 'Echo'} and '| tool |' in annotated.summary
  assert all(record['gain'] is not None and record['text'] in TEXTS
             for record in annotated.to_records())
  config = tf_jax.FinetuneConfig(steps=2, batch_rows=1, row_tokens=64, adapter=LORA)
  tuned = tf_jax.finetune(model, annotated, config=config)
  assert tuned.finished and [record['step'] for record in tuned.to_records()] == [1, 2]
  text = tf_jax.generate(tuned.model, 'Two', tools=['calculator'],
                         config=tf_jax.GenerationConfig(max_tokens=4))
  assert len(text.token_ids) >= 4 and text.text == tuned.model.tokenizer.decode(text.token_ids)
  assert list(tmp_path.iterdir()) == []  # no file without an output_dir


def test_a_folder_is_continued_and_has_the_same_result(model, annotated, tmp_path):
  config = tf_jax.FinetuneConfig(steps=2, batch_rows=1, row_tokens=64, adapter=LORA)
  first = tf_jax.finetune(model, annotated, config=config, output_dir=tmp_path / 'model')
  again = tf_jax.finetune(model, annotated, config=config, output_dir=tmp_path / 'model')
  assert first.metrics == again.metrics and (tmp_path / 'model' / 'model').is_dir()
  with pytest.raises(UserError, match='made with another configuration'):
    tf_jax.finetune(model, annotated, output_dir=tmp_path / 'model',
                    config=tf_jax.FinetuneConfig(steps=3, batch_rows=1, row_tokens=64,
                                                 adapter=LORA))


def test_a_trained_model_is_another_one_than_its_checkpoint(model, annotated, tmp_path):
  save_model(tmp_path / 'base', model)
  base = tf_jax.load_model(str(tmp_path / 'base'))
  assert base.source
  def annotate(model):
    return tf_jax.annotate(
        model, TEXTS, tools=['calculator'], output_dir=tmp_path / 'run',
        config=tf_jax.AnnotationConfig(max_text_tokens=60, max_call_tokens=6))
  annotate(base)
  config = tf_jax.FinetuneConfig(steps=1, batch_rows=1, row_tokens=64, adapter=LORA)
  tuned = tf_jax.finetune(base, annotated, config=config).model
  with pytest.raises(UserError, match='made with another configuration.*checkpoint'):
    annotate(tuned)


def test_losses_of_tokens_are_those_of_the_filter(model, annotated):
  scored = [call for calls in annotated.scored.values() for call in calls]
  texts = {document.id: document.text for document in annotated.documents}
  for call in scored[:4]:
    losses = tf_jax.token_losses(model, texts[call.document_id], position=call.position,
                                 call=f'[{call.tool}({call.argument}) -> {call.result}]')
    assert losses.gain == pytest.approx(call.gain, abs=1e-4)
    assert len(losses.to_records()) == len(losses.tokens) == len(losses.no_call)
    assert losses.weights[call.position] == pytest.approx(1 / 3)
    assert sum(losses.gain_shares) == pytest.approx(losses.gain, abs=1e-5)
    assert all(0 < share < 1 for share in losses.attention)
  assert scored


def test_a_call_may_stand_in_the_text(model):
  text, call = 'He has 3 and 4, so 7 pens.', ' [Calculator(3 + 4) -> 7]'
  inside = tf_jax.token_losses(model, f'{text[:18]}{call}{text[18:]}')
  position = len(model.tokenizer.encode(text[:18]))
  assert inside == tf_jax.token_losses(model, text, call=call, position=position)
  assert ''.join(inside.tokens) == text
  with pytest.raises(UserError, match='one call with a result, not 0'):
    tf_jax.token_losses(model, text)


@pytest.mark.parametrize('texts', [
  iter(TEXTS), (text for text in TEXTS), tuple(TEXTS), dict.fromkeys(TEXTS),
  [tf_jax.Document(f'text-{i}', text) for i, text in enumerate(TEXTS)]])
def test_texts_may_come_as_any_iterable(model, texts, tmp_path):
  annotate(model, TEXTS, output_dir=tmp_path, stages=())
  # The folder accepts no other corpus than its own.
  result = annotate(model, texts, output_dir=tmp_path, stages=())
  assert [document.text for document in result.documents] == TEXTS


@pytest.mark.parametrize('text', [TEXTS[0], tf_jax.Document('text-0', TEXTS[0])])
def test_a_single_text_is_one_document(model, text):
  document, = annotate(model, text, stages=()).documents
  assert document == tf_jax.Document('text-0', TEXTS[0])


def test_a_function_may_return_the_texts(model):
  result = annotate(model, lambda: iter(TEXTS), stages=(), depends_on={'corpus': 'mine'})
  assert [document.text for document in result.documents] == TEXTS


def test_a_function_that_returns_texts_needs_their_hash(model):
  with pytest.raises(UserError, match='needs depends_on={.corpus.: HASH}'):
    annotate(model, lambda: iter(TEXTS), stages=(), depends_on={'prompts': 'mine'})


def test_hashes_of_the_caller_are_added_to_those_of_corpus_and_model(model, annotated, tmp_path):
  def configuration(folder):
    return json.loads((tmp_path / folder / 'run.json').read_text())['configuration']
  annotate(model, TEXTS, stages=(), output_dir=tmp_path / 'a', depends_on={'prompts': 'mine'})
  made_with = configuration('a')
  assert made_with['prompts'] == 'mine' and made_with['corpus'] and made_with['checkpoint']
  with pytest.raises(UserError, match='made with another configuration: corpus'):
    annotate(model, TEXTS[:1], stages=(), output_dir=tmp_path / 'a',
             depends_on={'prompts': 'mine'})
  config = tf_jax.FinetuneConfig(steps=1, batch_rows=1, row_tokens=64, adapter=LORA)
  tf_jax.finetune(model, annotated, config=config, output_dir=tmp_path / 'b',
                  depends_on={'prompts': 'mine'})
  assert configuration('b')['checkpoint'] == made_with['checkpoint']


def test_an_annotation_needs_a_document(model):
  with pytest.raises(UserError, match='there is no document to annotate'):
    annotate(model, [])


def test_losses_need_a_position_for_every_token(model, make_model):
  text, call = 'one two ' * 30, '[Calculator(3 + 4) -> 7]'
  size = len(model.tokenizer.encode(text))
  small = make_model(max_positions=size + 1)  # the text and the start token, without the call
  with pytest.raises(UserError, match=f'has only {size + 1} positions; shorten the text'):
    tf_jax.token_losses(small, text, call=call, position=3)


def test_a_prompt_leaves_room_for_its_start_token(make_model):
  model = make_model(max_positions=16)
  room = 16 - 1 - len(model.tokenizer.encode('abc'))
  def generate(tokens):
    return tf_jax.generate(model, ['abc'], names=['mine.txt:1'],
                           config=tf_jax.GenerationConfig(max_tokens=tokens))
  assert generate(room)
  with pytest.raises(UserError, match='mine.txt:1 has 4 tokens, too many for'):
    generate(room + 1)
  with pytest.raises(UserError, match='prompt 0 is blank'):
    tf_jax.generate(model, [' '])
  with pytest.raises(UserError, match='mine.txt:1 has 20 tokens, and the model has only 16 pos'):
    tf_jax.score(model, 'a' * 20, names=['mine.txt:1'])


def test_extra_files_of_finetune_stay_those_of_its_configuration(model, annotated, tmp_path):
  def finetune(text, **settings):
    config = tf_jax.FinetuneConfig(steps=1, batch_rows=1, row_tokens=64, adapter=LORA, **settings)
    tf_jax.finetune(model, annotated, config=config, output_dir=tmp_path,
                    extra_files={'config.gin': text})
  finetune('mine')
  with pytest.raises(UserError, match='made with another configuration'):
    finetune('yours', learning_rate=0.1)
  assert (tmp_path / 'config.gin').read_text() == 'mine'


def test_a_temporary_folder_lives_as_long_as_what_is_read_from_it(model):
  result = annotate(model, TEXTS, stages=())
  path, documents = result.run.path, result.documents
  del result
  gc.collect()
  assert [document.text for document in documents] == TEXTS and len(documents) == 3
  del documents
  gc.collect()
  assert not path.exists()


def test_extra_files_are_written_before_the_work_and_under_the_lock(model, tmp_path):
  def broken_corpus():
    yield TEXTS[0]
    raise UserError('no more')
  def run(**arguments):
    annotate(model, broken_corpus, output_dir=tmp_path, depends_on={'corpus': 'broken'},
             **arguments)
  with pytest.raises(UserError, match='no more'):
    run(extra_files={'config.gin': 'mine'})
  assert (tmp_path / 'config.gin').read_text() == 'mine'
  with (RunFolder(tmp_path, json.loads((tmp_path / 'run.json').read_text())['configuration'], {}),
        pytest.raises(UserError, match='another process is writing')):
    run(extra_files={'config.gin': 'yours'})
  with pytest.raises(UserError, match='made with another configuration'):
    run(extra_files={'config.gin': 'yours'}, syntax=CallSyntax(end='>'))
  assert (tmp_path / 'config.gin').read_text() == 'mine'


def test_a_complete_run_has_its_report(model, tmp_path):
  result = annotate(model, 'One.', output_dir=tmp_path)
  assert result.complete and (tmp_path / 'report.md').read_text() == result.report
  assert result.report.startswith('1 documents were read') and '| Calculator | 1 |' in result.report
  assert repr(result) == 'AnnotationResult(1 texts, 0 kept calls in 0 of them)'


def test_a_tuned_model_is_not_its_base(model, annotated, tmp_path):
  """A folder that the base has annotated refuses the model that was trained from it."""
  path = tf_jax.export(model, output_dir=tmp_path / 'model')
  annotate(tf_jax.load_model(path), TEXTS, output_dir=tmp_path / 'run', stages=())
  config = tf_jax.FinetuneConfig(steps=1, batch_rows=1, row_tokens=64, learning_rate=0.1)
  tuned = tf_jax.finetune(tf_jax.load_model(path), annotated, config=config).model
  with pytest.raises(UserError, match='made with another configuration: checkpoint'):
    annotate(tuned, TEXTS, output_dir=tmp_path / 'run', stages=())


def test_tools_are_found_by_their_names_in_any_case(model):
  echo = tf_jax.tool(lambda argument: 'x', name='Echo')
  prompt = tf_jax.Prompt('Echo', 'Call it.', ('One is [Echo(1)] 1.',))
  mine = tf_jax.ToolConfig(tau_s=0.9)
  result = annotate(model, TEXTS[0], stages=(), tools=['calculator', echo],
                    prompts={'ECHO': prompt}, tool_configs={'Echo': mine})
  used = {name: row.plan for name, row in result.tool_summaries.items()}
  assert used['Echo'].config == mine and used['Echo'].prompt == prompt
  # A mapping of some tools leaves the paper's values to the others (appendix A).
  assert used['Calculator'].config == tf_jax.ToolConfig(tau_s=0.0, k=20, m=10, tau_f=0.5)


@pytest.mark.parametrize(('arguments', 'message'), [
  (dict(texts=[3]), 'text 0 is of type int'),
  (dict(texts=3), 'the documents are of type int; they must be a string, a Document, or several'),
  (dict(texts=None), 'the documents are of type NoneType'),
  (dict(texts=[tf_jax.Document('a', None)]), "the text of the document 'a' is of type NoneType"),
  (dict(tools=[lambda argument: argument]), "'<lambda>' cannot be written in calls; give it"),
  (dict(tools=3), 'a tool is a function, an object that can be called, or the name of a tool'),
  (dict(texts=lambda: TEXTS), 'needs depends_on={.corpus.: HASH}'),
  (dict(tool_configs={'calculater': tf_jax.ToolConfig()}),
   "tool_configs: unknown tool 'calculater': did you mean calculator"),
  (dict(tool_configs={'mt': tf_jax.ToolConfig()}), "tool_configs: unknown tool 'mt'"),
  (dict(tool_configs={'QA': tf_jax.ToolConfig(), 'qa': tf_jax.ToolConfig()}, tools=['qa']),
   'two entries for the tool qa'),
  (dict(prompts={'Echo': CALCULATOR}), "prompts: unknown tool 'Echo'"),
  (dict(prompts={'Calculator': tf_jax.Prompt('Echo', 'Call it.', ('One is [Echo(1)] 1.',))}),
   'the prompt for Calculator has calls to Echo'),
  (dict(tools=[]), 'no tool is given'),
  (dict(tools=['calculator', tf_jax.tool(lambda argument: 'x', name='calculator')]),
   'two tools have the same name'),
  (dict(stages='samples'), "unknown stage 'samples': did you mean sample"),
])
def test_wrong_arguments_are_named_before_a_model_is_loaded(arguments, message):
  chosen = {'tools': ['calculator'], **arguments}
  with pytest.raises(UserError, match=message):
    tf_jax.annotate('no/such/model', chosen.pop('texts', TEXTS), **chosen)


def test_models_may_be_paths(model, tmp_path):
  with pytest.raises(UserError, match='there is no checkpoint no/such/model'):
    tf_jax.load_model(pathlib.Path('no/such/model'))
  with pytest.raises(UserError, match='there is no checkpoint no/such/model'):
    tf_jax.plan(pathlib.Path('no/such/model'), topology='v5e-8', step='score', batch=1, length=8)
  path = tf_jax.export(model, output_dir=tmp_path / 'model')
  text = tf_jax.generate(path, 'Two', config=tf_jax.GenerationConfig(max_tokens=2))
  assert text.token_ids == tf_jax.generate(str(path), 'Two',
                                           config=tf_jax.GenerationConfig(max_tokens=2)).token_ids


def test_the_first_token_of_a_text_may_have_no_loss(model):
  """Without a start token nothing comes before it, so that no call can help to predict it."""
  tokenizer = copy.copy(model.tokenizer)
  tokenizer.start_id = None
  bare, call = dataclasses.replace(model, tokenizer=tokenizer), '[Calculator(3 + 4) -> 7]'
  with pytest.raises(UserError, match='must be from 1 to 20, .* not 0'):
    tf_jax.token_losses(bare, TEXTS[1], call=call, position=0)
  losses = tf_jax.token_losses(bare, TEXTS[1], call=call, position=1)
  assert losses.no_call[0] is None and None not in losses.no_call[1:]
  assert math.isfinite(losses.gain) and losses.weights[:2] == (0.0, pytest.approx(1 / 3))
  assert math.isfinite(tf_jax.token_losses(model, TEXTS[1], call=call, position=0).gain)


def test_texts_are_scored_alone_and_together(model):
  together = tf_jax.score(model, TEXTS)
  for text, scored in zip(TEXTS, together, strict=True):
    alone, = tf_jax.score(model, text)
    assert scored['token_ids'] == alone['token_ids'] == model.tokenizer.encode(text)
    assert scored['logprobs'][0] is None
    np.testing.assert_allclose(scored['logprobs'][1:], alone['logprobs'][1:], atol=1e-5)


def test_a_model_has_a_name_of_one_line(model):
  assert repr(model).startswith('LanguageModel(unnamed, ') and '\n' not in repr(model)


def test_functions_are_tools(model):
  def Shout(argument: str) -> str:
    """Returns the argument in capitals."""
    return argument.upper()
  text = tf_jax.generate(model, 'Two', tools=[Shout],
                         config=tf_jax.GenerationConfig(max_tokens=2, disable_tools=True))
  assert text.calls == []


@pytest.mark.parametrize('prompts', [5, None, [b'bytes'], ['a', 5], [['a']]])
def test_a_prompt_is_a_text(model, prompts):
  with pytest.raises(UserError, match=r'prompt \d is of type \w+; it must be a string'):
    tf_jax.generate(model, prompts)


def test_texts_are_given_as_soon_as_they_are_finished(model):
  seen = []
  config = tf_jax.GenerationConfig(max_tokens=2)
  texts = tf_jax.generate(model, TEXTS, config=config,
                          on_finished=lambda i, output: seen.append((i, output)))
  assert sorted(seen, key=lambda pair: pair[0]) == list(enumerate(texts))


def test_an_evaluation_takes_functions_as_tools(model, tmp_path):
  def Today(argument: str) -> str:
    """Returns no date."""
    return 'no date'
  result = tf_jax.evaluate('dateset', arms={'toolformer': model}, tools=['calendar', Today],
                           limit=2, output_dir=tmp_path / 'out')
  assert 'Today' in result.report and 'Calendar' in result.report
  with pytest.raises(UserError, match='a tool is a function'):
    tf_jax.evaluate('dateset', arms={'toolformer': model}, tools=[5], limit=2)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_arguments_are_keywords_and_documented(name):
  function = getattr(tf_jax, name)
  parameters = list(inspect.signature(function).parameters.values())
  assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters[2:])
  assert all(p.annotation is not inspect.Parameter.empty for p in parameters)
  assert '\n' in inspect.getdoc(function)


def test_names_are_there_and_nothing_is_loaded_before_its_use():
  assert set(tf_jax.__all__) <= set(dir(tf_jax))
  assert all(getattr(tf_jax, name).__doc__ for name in tf_jax.__all__)
  code = ('import sys, toolformer_jax\n'
          'sys.exit(bool({"jax", "numpy", "gin", "argparse"} & set(sys.modules)))')
  assert subprocess.run([sys.executable, '-c', code], cwd=pathlib.Path(__file__).parent,
                        check=False).returncode == 0
  code = ('import sys, toolformer_jax.api\n'
          'sys.exit(bool({"gin", "tensorflow", "torch"} & set(sys.modules)))')
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0
