"""TempLAMA (Dhingra et al. 2022): facts that change from year to year (paper, 4.2.5)."""

from collections.abc import Iterator

from toolformer_jax.evaluation.answer_matching import FirstWords
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.files import TaskFolder, read_lines
from toolformer_jax.evaluation.task import Question, QuestionTask
from toolformer_jax.evaluation.tasks.lama import PROMPT, before_final_mask


def read(folder: TaskFolder, settings: EvaluationConfig) -> Iterator[Question]:
  """Yields the questions whose blank is final; the calendar tells a day of the question's year."""
  path = folder.file('test.json', 'test.jsonl', 'templama_test.json')
  for fields in read_lines(path):
    beginning = before_final_mask(fields['query'], '_X_')
    if beginning is not None:
      answers = dict.fromkeys(answer['name'] for answer in fields['answer'])
      yield Question(fields['id'], PROMPT + beginning, tuple(answers),
                     date=f'{fields["date"]}-{settings.templama_day}')


TEMPLAMA = QuestionTask('templama', 'TempLAMA', read,
                'fetch https://storage.googleapis.com/gresearch/templama/test.json', FirstWords(5),
                prompt=PROMPT + '...')
