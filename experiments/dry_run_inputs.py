"""What a dry run reads: a random checkpoint of any shape of GPT-2, documents, pages, questions.

A random model hardly ever writes a call. The checkpoint of `save_random_checkpoint` has random
weights but for the first block's MLP, which goes on from certain tokens with those that follow them
in a few calls; so all tools are called, by samples of the annotation as by the evaluation.
"""

import json
import pathlib
from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np

from toolformer_jax import sharding
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.checkpoints.huggingface import save_directory
from toolformer_jax.data.catalogue import fetch
from toolformer_jax.data.records import Document, write_records
from toolformer_jax.models.config import DecoderConfig
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import LanguageModel, abstract_variables

CALLS = (' [Calculator(7 * 3) ->', ' [Calendar() ->', ' [WikiSearch(la tortuga verde) ->',
         ' [QA(la tortuga verde) ->', ' [MT(la tortuga verde) ->')
_SCALE = 0.02  # of the embeddings, as in GPT-2
_LOGIT = 40.0  # of a token that follows
_START_LOGIT = 15.0  # of ` [`, everywhere: among the ten largest, but not the largest
_END_WEIGHT = 0.97  # of `]` beside the arrow: a third of the samples end with it
_SLOPE, _THRESHOLD = 4.0, 0.6  # of the units that find a token; the threshold as a cosine


def save_random_checkpoint(path: pathlib.Path, config: DecoderConfig, seed: int = 0) -> None:
  """Writes a checkpoint in the format of transformers, with the tokenizer of SmolLM2."""
  tokenizer = GgufFile(fetch('smollm2-135m')).tokenizer()
  rng = np.random.default_rng(seed)
  shapes = sharding.unbox(abstract_variables(Decoder(config)))['params']
  params = _random(shapes, rng)
  directions = rng.standard_normal((config.vocab_size, config.embed_dim), np.float32)
  directions *= np.sqrt(config.embed_dim) / np.linalg.norm(directions, axis=1, keepdims=True)
  params['embedding'] = _SCALE * directions
  _write_table(params, directions, _next_tokens(tokenizer.encode), config)
  start, = tokenizer.encode(' [')
  unit = _SCALE * config.embed_dim  # the logit of a direction with itself
  params['final_norm']['scale'][:] = _LOGIT / unit
  params['final_norm']['bias'][:] = _START_LOGIT / unit * directions[start]
  tokenizer.vocab_size = config.vocab_size
  save_directory(path, LanguageModel.from_variables(config, {'params': params}, tokenizer,
                                                    sharding.make_mesh()))


def _random(shapes: Mapping, rng: np.random.Generator) -> dict:
  """Returns parameters that change a text's embeddings little: norms one, biases zero."""
  made = {}
  for name, shape in shapes.items():
    if isinstance(shape, Mapping):
      made[name] = _random(shape, rng)
    elif name in ('scale', 'bias'):
      made[name] = np.full(shape.shape, name == 'scale', np.float32)
    else:
      made[name] = rng.standard_normal(shape.shape, np.float32) * 1e-3
  return made


def _next_tokens(encode: Callable[[str], list[int]]) -> dict[int, dict[int, float]]:
  """Returns the tokens that follow each token in CALLS, with weights.

  A call may have no argument. While annotating it ends with `]`, else more often with an arrow.
  """
  following = defaultdict(dict)
  for call in CALLS:
    ids = encode(call)
    for before, after in zip(ids, ids[1:], strict=False):
      following[before][after] = 1.0
  (opening,), (closing,), (end,) = map(encode, ('(', ')', ']'))
  following[opening][closing] = 1.0
  for last in (closing, *encode('()')):
    following[last][end] = _END_WEIGHT
  return following


def _write_table(params: dict, directions: np.ndarray,
                 following: Mapping[int, Mapping[int, float]], config: DecoderConfig) -> None:
  """Lets the first block's MLP add the directions of the tokens that follow one."""
  root, mlp = np.sqrt(config.embed_dim), params['blocks']['mlp']
  found = _SLOPE * (1 - _THRESHOLD) * root  # what a unit gives for its token
  for unit, (before, after) in enumerate(following.items()):
    mlp['up']['kernel'][0, :, unit] = _SLOPE * directions[before] / root
    mlp['up']['bias'][0, unit] = -_SLOPE * _THRESHOLD * root
    mlp['down']['kernel'][0, unit] = sum(
        weight * directions[i] for i, weight in after.items()) / (found * len(after) ** 0.5)


def write_corpus(path: pathlib.Path, count: int) -> None:
  """Writes documents that pass the heuristics of all tools: numbers, a date, and some Spanish."""
  write_records(path, (Document(
      f'd{i}', f'The shop on the corner sold {i + 2} boxes of 3 pears last week, a total of '
      f'{3 * (i + 2)} pears, and the owner wrote about it to all of her friends in the town. '
      'La gente del pueblo viene aquí cada mañana para comprar pan y fruta porque todo es fresco y '
      'muy barato en esta tienda pequeña. That is what a guest had said to her the day before, and '
      f'she put it on the wall in letter {i} of her collection.',
      url=f'https://example.org/2019/03/{i % 28 + 1:02}/pears-{i}') for i in range(count)))


def write_pages(path: pathlib.Path) -> None:
  """Writes the pages that the search finds."""
  write_records(path, [
      Document('p0', 'La tortuga verde is the Spanish name of the green sea turtle.',
               title='Green sea turtle'),
      Document('p1', 'Pears are grown in many countries of the north.', title='Pear')])


def write_questions(data_dir: pathlib.Path) -> None:
  """Writes two or three questions of every benchmark in its official format."""
  for name, content in _QUESTIONS.items():
    path = data_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else
                    '\n'.join(map(json.dumps, content)) if name.endswith('jsonl')
                    else json.dumps(content), 'utf-8')


def _squad(*questions: str) -> dict:
  return {'data': [{'paragraphs': [{'context': 'The mill was built in Reno in 1910.', 'qas': [
      {'id': f'q{i}', 'question': question, 'answers': [{'text': '1910'}]}
      for i, question in enumerate(questions)]}]}]}


_ASDIV = '<M><ProblemSet>' + ''.join(
    f'<Problem ID="n{i}"><Body>Ann has {i} pears and buys 4.</Body><Question>How many are there?'
    f'</Question><Answer>{i + 4} (pears)</Answer></Problem>' for i in (2, 5)) + '</ProblemSet></M>'
_BORN = [{'sub_label': name, 'obj_label': label, 'uuid': f'u{i}', 'predicate_id': 'P19',
          'masked_sentences': [f'{name} [MASK]'], 'evidences': []}
         for i, (name, label) in enumerate((('Ann Roe', 'Oslo'), ('Bo Lee', 'Rome')))]
_QUESTIONS = {
    'lama/relations.jsonl': [{'relation': 'P19', 'template': '[X] was born in [Y] .'}],
    'lama/Squad_test.jsonl': [{'masked_sentences': [f'The {thing} is made of [MASK].'],
                               'obj_label': 'clay', 'id': thing} for thing in ('jug', 'cup')],
    **{f'lama/Google_RE_{relation}.jsonl': [
        {**row, 'uuid': f'{relation}-{row["uuid"]}'} for row in _BORN]
       for relation in ('date_of_birth', 'place_of_birth', 'place_of_death')},
    'lama/TREx_P19.jsonl': _BORN,
    'asdiv/ASDiv.xml': _ASDIV,
    'svamp/SVAMP.json': [{'ID': f's{i}', 'Body': f'A bus has {i} seats.', 'Answer': 2.0 * i,
                          'Question': 'How many seats do two buses have?'} for i in (20, 30)],
    'mawps/AddSub.json': [{'sQuestion': f'What do {i} and 9 make?', 'lSolutions': [i + 9.0]}
                          for i in (4, 6)],
    'webquestions/test.json': [{'qId': f'w{i}', 'qText': f'where was {name} born', 'answers': [
        'Oslo']} for i, name in enumerate(('ann roe', 'bo lee'))],
    'nq_open/NQ-open.dev.jsonl': [{'question': f'who wrote book {i}', 'answer': ['Ann Roe']}
                                  for i in (1, 2)],
    'triviaqa/unfiltered-web-dev.json': {'Data': [
        {'QuestionId': f't{i}', 'Question': f'Which town has mill {i}?',
         'Answer': {'Value': 'Reno', 'Aliases': []}} for i in (1, 2)]},
    **{f'mlqa/test-context-en-question-{language}.json': _squad(*questions)
       for language, questions in {
           'en': ('When was the mill built?', 'Since when is there a mill?'),
           'es': ('¿Cuándo se construyó el molino?', '¿Desde cuándo hay un molino?'),
           'de': ('Wann wurde die Mühle gebaut?', 'Seit wann gibt es eine Mühle?'),
           'hi': ('मिल कब बनी?', 'मिल कब से है?'),
           'vi': ('Nhà máy được xây khi nào?', 'Có nhà máy từ khi nào?'),
           'zh': ('磨坊是什么时候建的？', '从什么时候起有磨坊？'),
           'ar': ('متى بنيت الطاحونة؟', 'منذ متى توجد طاحونة؟')}.items()},
    'templama/test.json': '\n'.join(json.dumps(
        {'query': 'Di Mo plays for _X_.', 'answer': [{'name': f'Club {year}'}], 'date': str(year),
         'id': f'x{year}'}) for year in (2012, 2014)),
    'wikitext2/wiki.test.tokens': '\n = Pear = \n \n A pear is a fruit . \n = Mill = \n \n A mill '
                                  'makes flour . \n'}
