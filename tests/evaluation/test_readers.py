"""Benchmarks are read in their official formats: from small files of our own, and the real ones."""

import gzip
import json
from collections import Counter

import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.answer_matching import FirstNumber, first_number
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import MissingDataError
from toolformer_jax.evaluation.task import QuestionTask
from toolformer_jax.evaluation.tasks import TASKS, find_tasks, load_examples, load_task

SETTINGS = EvaluationConfig()


@pytest.fixture
def read(tmp_path):
  """Writes files into the folder of a task, and reads it."""
  def read(name, files, limit=None, **settings):
    for file, content in files.items():
      path = tmp_path / name / file
      path.parent.mkdir(parents=True, exist_ok=True)
      data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
      path.write_bytes(gzip.compress(data) if file.endswith('.gz') else data)
    return load_examples(TASKS[name], tmp_path, EvaluationConfig(**settings), limit)
  return read


def lines(*objects):
  return '\n'.join(json.dumps(each) for each in objects)


LAMA = {
    'Squad_test.jsonl': lines(
        {'masked_sentences': ['The jug is made of [MASK].'], 'obj_label': 'clay', 'id': 'a'},
        {'masked_sentences': ['The [MASK] is made of clay.'], 'obj_label': 'jug', 'id': 'b'}),
    'Google_RE_date_of_birth.jsonl': lines(
        {'sub_label': 'Ann Roe', 'obj_label': '1950', 'uuid': 'g1',
         'masked_sentences': ['Ann Roe was born in [MASK] .']}),
    'Google_RE_place_of_birth.jsonl': lines(
        {'sub_label': 'Bo Lee', 'obj_label': 'Oslo', 'uuid': 'g2',
         'masked_sentences': ['In [MASK] Bo Lee was born .']}),
    'Google_RE_place_of_death.jsonl': lines(
        {'sub_label': 'Bo Lee', 'obj_label': 'Rome', 'uuid': 'g3', 'masked_sentences': ['[MASK]']}),
    'relations.jsonl': lines({'relation': 'P19', 'template': '[X] was born in [Y] .'},
                             {'relation': 'P190', 'template': '[X] and [Y] are twin cities .'}),
    'TREx_P19.jsonl.gz': lines(
        {'sub_label': 'Cy Fox', 'obj_label': 'Bern', 'uuid': 't1', 'predicate_id': 'P19',
         'evidences': [{'masked_sentence': '[MASK] saw Cy Fox.'},
                       {'masked_sentence': 'Cy Fox grew up in [MASK] .'}]}),
    'TREx_P190.jsonl': lines(
        {'sub_label': 'Bonn', 'obj_label': 'Oxford', 'uuid': 't2', 'predicate_id': 'P190',
         'evidences': []})}
COMPLETE = 'Please complete the following text so that it is factually correct: '


@pytest.mark.parametrize(('statements', 'expected'), [
    ('template', {'Cy Fox was born in': 'Bern', 'Ann Roe (born': '1950',
                  'Bo Lee was born in': 'Oslo', 'Bo Lee died in': 'Rome',
                  'The jug is made of': 'clay'}),
    ('evidence', {'Cy Fox grew up in': 'Bern', 'Ann Roe was born in': '1950',
                  'The jug is made of': 'clay'}),
])
def test_lama_keeps_what_ends_in_its_mask(read, statements, expected):
  found = read('lama', LAMA, lama_statements=statements)
  assert {q.prompt.removeprefix(COMPLETE): q.answers[0] for q in found} == expected


def test_lama_without_one_of_its_sets_asks_the_others(read, caplog):
  some = {name: text for name, text in LAMA.items() if not name.startswith('Google')}
  assert {question.group for question in read('lama', some)} == {'squad', 'trex'}
  assert 'Google_RE_date_of_birth' in caplog.text


def test_asdiv(read):
  xml = '''<?xml version="1.0"?><M><ProblemSet>
    <Problem ID="n1"><Body>Two pears.</Body><Question>How many? </Question>
      <Answer>2 (pears)</Answer></Problem>
    <Problem ID="n2"><Body>A race.</Body><Question>Who won?</Question><Answer>Ann</Answer></Problem>
    <Problem ID="n3"><Body>Bells.</Body><Question>When?</Question><Answer>3:30 p.m.</Answer>
    </Problem></ProblemSet></M>'''
  only, = read('asdiv', {'ASDiv.xml.gz': xml})
  assert (only.prompt, only.answers) == ('Two pears. How many? The answer is', ('2 (pears)',))
  assert [q.id for q in read('asdiv', {}, numeric_only=False)] == ['n1', 'n2', 'n3']


def test_svamp(read):
  only, = read('svamp', {'SVAMP.json': [
      {'ID': 'c1', 'Body': 'Eve has 3 keys. ', 'Question': 'How many?', 'Answer': 3.0}]})
  assert (only.prompt, only.answers) == ('Eve has 3 keys. How many? The answer is', ('3.0',))


def test_mawps_in_json_and_in_folds(read, tmp_path):
  problem = {'iIndex': 1, 'sQuestion': 'Two and 3?', 'lEquations': ['X=2+3'], 'lSolutions': [5.0]}
  only, = read('mawps', {'AddSub.json': [problem], 'SingleOp.json': [problem]})
  assert (only.prompt, only.answers) == ('Two and 3? The answer is', ('5.0',))
  for file in (tmp_path / 'mawps').iterdir():
    file.unlink()
  header = 'Question,Numbers,Equation,Answer\n'
  folds = {'fold0/dev.csv': header + '"number1 , then number0 ?",8.0 2.5,+ number0 number1,10.5\n',
           'fold1/dev.csv': header + 'number0 ?,7,number0,7.0\n',
           'fold0/train.csv': header + 'never ?,7,number0,7.0\n'}
  assert [(q.prompt, q.answers) for q in read('mawps', folds)] == [
      ('2.5 , then 8 ? The answer is', ('10.5',)), ('7 ? The answer is', ('7.0',))]


def test_gsm8k_asks_all_test_questions_or_where_asked_for_the_dev_questions_of_train(read):
  problems = [{'question': f'Is it {i}?', 'answer': f'<<{i}={i}>>{i}\n#### 1,{i:03}'}
              for i in range(60)]
  with pytest.raises(MissingDataError, match='has no test.jsonl .*gsm8k_split = .dev. asks its'):
    read('gsm8k', {'train.jsonl': lines(*problems)})
  asked = read('gsm8k', {}, gsm8k_split='dev')
  assert 0 < len(asked) < 20
  everything = read('gsm8k', {'test.jsonl': lines(*problems)})
  assert len(everything) == 60 and everything[7].answers == ('1,007',)
  assert everything[7].prompt == 'Is it 7? The answer is'
  assert {q.prompt for q in asked} < {q.prompt for q in everything}


def test_questions_of_the_open_domain(read, tmp_path):
  brmson = [{'qId': 'w1', 'qText': 'who is he', 'answers': ['Al', 'Al B']}]
  only, = read('webquestions', {'test.json': brmson})
  assert (only.prompt, only.answers) == (
      'Answer the following question: who is he?', ('Al', 'Al B'))
  (tmp_path / 'webquestions/test.json').unlink()
  official = [{'utterance': 'where?', 'targetValue': '(list (description Rome) '
               '(description "New \\"Big\\" York"))'}]
  only, = read('webquestions', {'webquestions.examples.test.json': official})
  assert (only.prompt, only.answers) == (
      'Answer the following question: where?', ('Rome', 'New "Big" York'))
  only, = read('nq_open', {'NQ-open.dev.jsonl': lines({'question': 'why', 'answer': ['so', 'no']})})
  assert (only.prompt, only.answers) == ('Answer the following question: why?', ('so', 'no'))
  trivia = {'Data': [{'QuestionId': 'q1', 'Question': 'Which?', 'Answer': {
      'Value': 'A', 'Aliases': ['A', 'Aa']}}]}
  only, = read('triviaqa', {'triviaqa-unfiltered/unfiltered-web-dev.json': trivia})
  assert only.answers == ('A', 'Aa')


def squad(context, *questions):
  return {'data': [{'paragraphs': [{'context': context, 'qas': [
      {'id': number, 'question': question, 'answers': [{'text': answer}]}
      for number, question, answer in questions]}]}]}


def test_foreign_questions_about_english_paragraphs(read):
  prompt = ('Your task is to answer a question based on the following paragraph: The cat sat. '
            'Now answer the following question in English: Wer?')
  english = squad('The cat sat.', ('1', 'Who?', 'cat'))
  only, = read('xquad', {'xquad.en.json': english,
                         'xquad.de.json.gz': squad('Die Katze sass.', ('1', 'Wer?', 'Katze'))})
  assert (only.prompt, only.answers, only.group) == (prompt, ('cat',), 'de')
  only, = read('mlqa', {'test-context-en-question-de.json': squad('The cat sat.',
                                                                  ('1', 'Wer?', 'cat')),
                        'test-context-en-question-en.json': english})
  assert (only.prompt, only.answers, only.group) == (prompt, ('cat',), 'de')


def test_the_same_questions_in_english_are_grouped_by_the_language_of_mlqa(read):
  def squad(*questions):
    return {'data': [{'paragraphs': [{'context': 'The cat sat.', 'qas': [
        {'id': name, 'question': text, 'answers': [{'text': 'cat'}]}
        for name, text in questions]}]}]}
  english = squad(('a', 'Who sat?'), ('b', 'What sat?'), ('c', 'Which sat?'))
  read('mlqa', {'test-context-en-question-de.json': squad(('a', 'Wer saß?'), ('b', 'Was saß?')),
                'test-context-en-question-es.json': squad(('b', '¿Qué?'))})
  with pytest.raises(MissingDataError, match='has no test-context-en-question-en.json'):
    read('mlqa_all_en', {})
  read('mlqa', {'test-context-en-question-en.json': english})
  found = read('mlqa_all_en', {})
  assert [(q.group, q.id, q.prompt.rsplit(': ', 1)[1]) for q in found] == [
      ('es', 'es-b', 'What sat?'), ('de', 'de-a', 'Who sat?'), ('de', 'de-b', 'What sat?')]
  assert {q.answers for q in found} == {('cat',)}


def test_templama_tells_the_year_by_the_calendar_alone(read):
  only, = read('templama', {'test.json': lines(
      {'query': 'Di Mo plays for _X_.', 'answer': [{'name': 'AC'}, {'name': 'BC'}], 'date': '2014',
       'id': 'x1'},
      {'query': '_X_ leads Spain.', 'answer': [{'name': 'Y'}], 'date': '2014', 'id': 'x2'})})
  assert (only.prompt, only.answers, only.date) == (
      COMPLETE + 'Di Mo plays for', ('AC', 'BC'), '2014-07-01')


def test_texts_of_perplexity(read):
  wiki = ' \n = First page = \n \n One . \n = = Part = = \n Two . \n = Second = \n Three . \n'
  assert [text.text for text in read('wikitext2', {'wiki.valid.tokens': wiki})] == [
      '= First page = \n \n One . \n = = Part = = \n Two .', '= Second = \n Three .']
  texts = read('corpus', {'a.jsonl.gz': lines({'text': 'One'}, {'text': ' '}, {'text': 'Two'})})
  assert [text.text for text in texts] == ['One', 'Two']


def test_files_of_ccnet_are_texts_of_perplexity(read):
  texts = read('corpus', {'en_head_0000.json.gz': lines(
      {'url': 'https://x.org/2018/03/21', 'raw_content': 'One', 'language': 'en'},
      {'url': 'https://x.org', 'raw_content': 'Two'})})
  assert [text.text for text in texts] == ['One', 'Two']


def test_a_limit_gives_every_part_its_share(read):
  three = read('lama', LAMA, 3)
  assert len(three) == 3 and {q.group for q in three} == {'squad', 'google_re', 'trex'}
  assert read('lama', {}, 4)[:3] == three


@pytest.mark.parametrize('name', [name for name, task in TASKS.items() if task.how_to_get])
def test_what_is_missing_says_how_to_get_it(name, tmp_path):
  with pytest.raises(MissingDataError) as error:
    load_examples(TASKS[name], tmp_path, SETTINGS)
  assert TASKS[name].how_to_get in str(error.value) and str(
      tmp_path / (TASKS[name].folder or name)) in str(error.value)


PROBLEM = {'ID': 'c1', 'Body': 'Eve has 3 keys.', 'Question': 'How many?', 'Answer': 3.0}


@pytest.mark.parametrize(('name', 'files'), [
    ('svamp', {'SVAMP.json': [{'Body': 'x'}]}),
    ('svamp', {'SVAMP.json': '[{'}),
    ('svamp', {'SVAMP.json': []}),
    ('svamp', {'SVAMP.json': ''}),
    ('svamp', {'SVAMP.json': [PROBLEM, PROBLEM]}),
    ('svamp', {'SVAMP.json': [{**PROBLEM, 'ID': 3}]}),
    ('svamp', {'SVAMP.json': [{**PROBLEM, 'ID': ['c1']}]}),
    ('svamp', {'SVAMP.json': [{**PROBLEM, 'Answer': None}]}),
    ('svamp', {'SVAMP.json': [{**PROBLEM, 'Body': '\ud800'}]}),
    ('gsm8k', {'test.jsonl': '{"question": "One?", "answer": "1"}'}),
    ('templama', {'test.json': lines({'query': 'Di plays for _X_.', 'answer': [{'name': 'AC'}],
                                      'date': 'MMXX', 'id': 'x1'})}),
    ('wikitext2', {'wiki.test.tokens': 'no title'}),
    ('nq_open', {'NQ-open.dev.jsonl': '{"question": "why", "answer": "so"}'}),
    ('nq_open', {'NQ-open.dev.jsonl': '{"question": "why", "answer": []}'}),
    ('nq_open', {'NQ-open.dev.jsonl': '{"question": "why", "answer": [3]}'}),
    ('svamp', {'SVAMP.json.gz': '[]'[:1]}),
    ('asdiv', {'ASDiv.xml': '<a><Problem ID="1"><Body>x</Body></Problem></a>'}),
    ('asdiv', {'ASDiv.xml': '<a>'}),
    ('mawps', {'a.csv': 'Question,Numbers\nnumber3,1\n'}),
    ('nq_open', {'NQ-open.dev.jsonl': '{"question": 3}'}),
    ('mlqa', {'test-context-en-question-de.json': {'data': 3}}),
    ('xquad', {'xquad.en.json': squad('x'), 'xquad.de.json': squad('x', ('1', 'Wer?', 'A'))}),
    ('corpus', {'a.jsonl': '{"body": "x"}'}),
    ('lama', {**LAMA, 'relations.jsonl': lines({'relation': 'P1', 'template': '[X] [Y]'})}),
])
def test_a_broken_file_is_one_clear_error(read, name, files):
  with pytest.raises(UserError) as error:
    read(name, files)
  assert name in str(error.value) and not isinstance(error.value, MissingDataError)


def test_names_of_tasks_in_any_case_each_once():
  assert [task.name for task in find_tasks(['SVAMP', 'lama ', 'svamp'])] == ['svamp', 'lama']
  with pytest.raises(UserError, match='did you mean svamp'):
    find_tasks(['swamp'])
  with pytest.raises(UserError, match='no task'):
    find_tasks([''])


@pytest.mark.parametrize(('name', 'files', 'settings', 'source'), [
    ('gsm8k', ['test.jsonl', 'train.jsonl'], {}, '1 questions of {}/test.jsonl (split: test)'),
    ('gsm8k', ['test.jsonl', 'train.jsonl'], {'gsm8k_split': 'dev'},
     '1 questions of {}/train.jsonl (split: the tenth of train that is never annotated)'),
    ('corpus', ['a.jsonl', 'b.jsonl', 'c.jsonl', 'd.jsonl', 'e.jsonl', 'f.jsonl'], {},
     '6 texts of {0}/a.jsonl, {0}/b.jsonl, {0}/c.jsonl, {0}/d.jsonl and 2 more files (split: all)'),
    ('dateset', [], {}, '9,400 questions, made by this program')])
def test_data_say_where_they_come_from(tmp_path, name, files, settings, source):
  # The sha256 of this question is divisible by 10.
  line = lines({'question': 'Is it 4?', 'answer': '#### 4', 'text': 'Is it 4?'})
  (tmp_path / name).mkdir()
  for file in files:
    (tmp_path / name / file).write_text(line)
  data = load_task(TASKS[name], tmp_path, EvaluationConfig(**settings))
  assert data.source() == source.format(tmp_path / name)


def test_a_report_names_the_validation_file_of_wikitext(tmp_path):
  (tmp_path / 'wikitext2').mkdir()
  (tmp_path / 'wikitext2' / 'wiki.valid.tokens').write_text(' = Title = \n\n text \n')
  assert load_task(TASKS['wikitext2'], tmp_path, SETTINGS).split == 'validation'


@pytest.mark.parametrize(('name', 'counts'), [
    ('lama', {'squad': 210, 'google_re': 5528, 'trex': 7999}),  # of T-REx 13 relations are there
    ('asdiv', {'': 2084}),  # and 221 whose answer is not one number
    ('svamp', {'': 1000}),
    ('gsm8k', {'': 714}),
    ('webquestions', {'': 2032}),
    ('nq_open', {'': 3610}),
    ('xquad', dict.fromkeys(('es', 'de', 'hi', 'vi', 'zh', 'ar'), 1190)),
    ('wikitext2', {'': 60}),
    ('wnut17', {'': 1287}), ('scitldr', {'': 618}), ('xquad_en', {'': 1190}),
    ('sgd', {'': 414}),  # of three files of the dev part, every fifth dialogue
    ('flores200', dict.fromkeys(('de', 'es', 'fr', 'pt', 'ru', 'zh', 'vi', 'hi', 'ar'), 199)),
])
def test_the_real_data(data_dir, name, counts):
  try:
    items = load_examples(TASKS[name], data_dir, EvaluationConfig(gsm8k_split='dev'))
  except MissingDataError as error:
    pytest.skip(str(error))
  assert Counter(item.group for item in items) == counts
  if isinstance(TASKS[name], QuestionTask):
    assert all(item.prompt == item.prompt.strip() and all(item.answers) for item in items)
    if isinstance(TASKS[name].matcher, FirstNumber):
      assert all(first_number(answer) for item in items for answer in item.answers)
