"""An epoch has the texts of each tool as often as rates and caps say."""

import dataclasses
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolformer_jax.data.augmentation import AugmentationConfig
from toolformer_jax.data.records import AnnotatedDocument, Document, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.training import finetune as finetune_module
from toolformer_jax.training.config import FinetuneConfig, MixtureConfig
from toolformer_jax.training.mixture import build_epoch, hold_out
from toolformer_jax.training.sources import TaskRow


def _text(number, *tools):
  calls = tuple(ScoredCall(f'd{number}', tool, '1', 0, 0.5, '1') for tool in tools)
  return AnnotatedDocument(Document(f'd{number}', 'text'), calls)


def _counts(texts):
  return Counter(text.document.id for text in texts)


def _texts(calculator, search, plain):
  tools = [('Calculator',)] * calculator + [('WikiSearch',)] * search + [()] * plain
  return [_text(number, *some) for number, some in enumerate(tools)]


@given(sizes=st.tuples(*[st.integers(1, 30)] * 3), cap=st.integers(1, 40),
       rate=st.floats(0, 5), seed=st.integers(0, 9))
def test_each_tool_has_its_cap_times_its_rate(sizes, cap, rate, seed):
  texts = _texts(*sizes)
  chosen = _counts(build_epoch(texts, MixtureConfig(
      cap=cap, rates={'WikiSearch': rate, 'text': 0.0}, seed=seed)))
  groups = [texts[:sizes[0]], texts[sizes[0]:sizes[0] + sizes[1]], texts[sizes[0] + sizes[1]:]]
  totals = [sum(chosen[text.document.id] for text in group) for group in groups]
  capped = min(cap, sizes[1])
  assert totals == [min(cap, sizes[0]), pytest.approx(rate * capped, abs=0.5 + 1e-9), 0]
  # No text twice before another once.
  times = [chosen[text.document.id] for text in groups[1]]
  if sizes[1] <= cap:
    assert max(times) - min(times) <= 1


def test_what_the_paper_says_by_default():
  texts = _texts(3, 2, 1)
  assert build_epoch(texts, MixtureConfig()) == texts


def test_a_text_with_several_tools_counts_for_the_rarest():
  texts = [_text(0, 'Calculator'), _text(1, 'Calculator'), _text(2, 'Calculator', 'WikiSearch')]
  chosen = _counts(build_epoch(texts, MixtureConfig(rates={'WikiSearch': 3.0})))
  assert chosen == {'d0': 1, 'd1': 1, 'd2': 3}


def test_which_texts_depends_on_seed_and_ids_alone():
  texts = _texts(40, 0, 0)
  def chosen(texts, seed):
    return set(_counts(build_epoch(texts, MixtureConfig(cap=10, seed=seed))))
  assert chosen(texts, 1) == chosen(texts[::-1], 1) != chosen(texts, 2)


def test_a_rate_without_texts_is_refused():
  with pytest.raises(UserError, match="unknown tool in MixtureConfig.rates 'Calculater': did you "
                                      'mean Calculator'):
    build_epoch(_texts(1, 0, 1), MixtureConfig(rates={'Calculater': 2.0}))


def test_a_rate_of_a_tool_is_accepted_if_all_its_texts_count_as_of_another():
  texts = [_text(0, 'Calendar', 'QA'), _text(1, 'Calendar', 'QA'), _text(2, 'Calendar')]
  assert _counts(build_epoch(texts[:2], MixtureConfig(rates={'QA': 0.0}))) == {'d0': 1, 'd1': 1}
  assert _counts(build_epoch(texts, MixtureConfig(rates={'QA': 0.0}))) == {'d2': 1}


@pytest.mark.parametrize('rate', [-1.0, '2', True])
def test_rates_are_numbers(rate):
  with pytest.raises(UserError, match='MixtureConfig.rates'):
    MixtureConfig(rates={'Calculator': rate})


@given(count=st.integers(0, 60), wanted=st.integers(0, 20), seed=st.integers(0, 9))
def test_held_out_texts_are_not_trained_on(count, wanted, seed):
  texts = [TaskRow(f'row-{i}', '', 'a') for i in range(count)]
  trained, dev = hold_out(texts, MixtureConfig(dev_texts=wanted, seed=seed))
  assert len(dev) == min(wanted, count // 10)
  assert sorted([*trained, *dev], key=texts.index) == texts
  assert not set(trained) & set(dev)


ROWS = [TaskRow(f'row-{i}', f'{" ".join(f"w{i + j}" for j in range(20))}\nIntent:', f' do {i}\n')
        for i in range(20)]


def test_changed_copies_come_after_their_texts_and_learn_the_same_targets():
  mixture = MixtureConfig(augmentation=AugmentationConfig(copies=3, word_swap=0.5))
  epoch = build_epoch(ROWS, mixture)
  assert len(epoch) == 4 * len(ROWS) and epoch[::4] == ROWS
  for number, row in enumerate(epoch):
    original = ROWS[number // 4]
    assert (row.id, row.targets) == (original.id, original.targets)
    assert sorted(row.inputs.split()) == sorted(original.inputs.split())
    assert row.inputs.endswith('\nIntent:')
  assert len({row.inputs for row in epoch}) > 3.9 * len(ROWS)  # nearly all differ
  assert build_epoch(ROWS, mixture) == epoch
  assert build_epoch(ROWS, dataclasses.replace(mixture, seed=1)) != epoch


def test_at_zero_there_are_no_copies():
  assert build_epoch(ROWS, MixtureConfig(augmentation=AugmentationConfig(copies=3))) == ROWS


def test_texts_with_calls_and_ids_have_no_copies():
  mixture = MixtureConfig(augmentation=AugmentationConfig(word_dropout=1.0))
  ids = TaskRow('ids', [1, 2, 3], [4])
  texts = [*_texts(2, 0, 1), ids]
  with pytest.raises(UserError, match='augmentation changes the inputs of tasks'):
    build_epoch(texts, mixture)
  assert build_epoch([*texts, ROWS[0]], mixture)[:-1] == [*texts, ROWS[0]]


def test_held_out_texts_are_not_changed(epoch):
  mixture = MixtureConfig(dev_texts=2, augmentation=AugmentationConfig(word_dropout=0.5))
  trained, dev = epoch(ROWS, mixture, False)
  whole = [row.inputs + row.targets for row in ROWS]
  assert len(dev) == 2 and set(dev) <= set(whole)
  assert len(trained) > 18 and len(set(trained) & set(whole)) == 18


@pytest.fixture
def epoch(make_model, tokenizer, tmp_path, monkeypatch):
  """Returns a function from settings to the texts that `finetune` trains on, decoded."""
  def texts_of(texts, mixture, without_calls):
    def keep(*, examples, dev_examples, **settings):
      seen.extend([examples, dev_examples])
      (tmp_path / 'metrics.jsonl').touch()
    seen = []
    monkeypatch.setattr(finetune_module, 'finetune_examples', keep)
    finetune_module.finetune(make_model(), texts, config=FinetuneConfig(), output_dir=tmp_path,
                             depends_on={}, mixture=mixture, without_calls=without_calls)
    return [[tokenizer.decode(example.token_ids) for example in examples] for examples in seen]
  return texts_of


def test_without_calls_an_epoch_has_the_same_texts(epoch):
  """The caps and rates of "+ CC" are those of the texts with calls (paper, section 4.1)."""
  texts = [dataclasses.replace(text, document=Document(text.document.id, f'text {number}'))
           for number, text in enumerate(_texts(30, 20, 10))]
  mixture = MixtureConfig(cap=15, rates={'WikiSearch': 2.5, 'text': 0.5}, dev_texts=4, seed=3)
  with_calls, without = (epoch(texts, mixture, remove) for remove in (False, True))
  def remove_calls(examples):
    return [re.sub(r' \[\w+\(1\) -> 1\]', '', example) for example in examples]
  tools = Counter(tool for example in with_calls[0] for tool in re.findall(r'\[(\w+)', example))
  assert tools == {'Calculator': 15, 'WikiSearch': round(2.5 * 15)}
  assert without == [remove_calls(examples) for examples in with_calls]
