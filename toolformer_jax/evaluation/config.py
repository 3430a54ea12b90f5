"""The settings of an evaluation that the paper leaves open; they are printed below every score."""

from dataclasses import dataclass
from typing import Literal

from toolformer_jax.data.dates import parse_iso_date
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.validation import check


@dataclass(frozen=True)
class EvaluationConfig:
  """Settings of an evaluation. Words are separated by whitespace; calls are not words.

  Attributes:
    fold_case: ignore case when comparing a prediction with an answer.
    fold_punctuation: ignore punctuation and symbols, which count as whitespace.
    whole_words: an answer must begin and end at a word boundary.
    aliases: accept every answer of a question, not only the main one; for dates and numbers, every
      usual spelling (14 or 14th, 1234 or 1,234).
    number_tolerance: how far a number may be from the answer; the calculator rounds to two
      decimals.
    numeric_only: leave out word problems whose answer is not one number. Of the others, a
      prediction is compared with the first number; an answer without any is never matched.
    gsm8k_split: 'test' for test.jsonl of GSM8K; 'dev' for the tenth of train.jsonl that is never
      annotated.
    lama_statements: 'template' (of the relation, for T-REx and Google-RE) or 'evidence' (sentences
      of the corpus).
    calendar_date: date that the calendar returns where a benchmark has none.
    templama_day: month and day of the date that it returns for a question of TempLAMA, in the
      year of the question.
    dateset_seed: seed of the dates and questions of Dateset.
    few_shot_prompt: text file, in the working directory or in configs/, that comes before every
      question, with a blank line between them, such as questions whose answers have calls to a
      tool that the model was not trained with. '' for none, as in the paper.
    calibrate_labels: subtract from the log-probability of each label that after a text which says
      nothing (Zhao et al. 2021), in tasks of classification.
    ensemble_adapters: in tasks of classification, the score of a label is the mean over all
      adapters that the model of an arm has by name; one without any has its own score. Several
      --adapter NAME=D of a command set it.
    start_token: begin prompts and texts with the tokenizer's start token, where it has one (not
      stated in the paper).
    min_tokens: the end of the text is not sampled before a continuation has this many tokens; calls
      and results do not count. A model that was fine-tuned on whole texts may otherwise take a
      question for one.
    number_tokens: longest continuation of a word problem, without call and result.
    tokens_per_word: longest continuation of other questions, for each word that is compared.
    window_tokens, stride_tokens: for perplexities, texts are cut into windows of `window_tokens`,
      each `stride_tokens` after the previous one; a token is scored in the first window that
      contains it.
    bootstrap_samples, seed: of the confidence intervals of perplexities and differences.
  """

  fold_case: bool = True
  fold_punctuation: bool = True
  whole_words: bool = True
  aliases: bool = True
  number_tolerance: float = 0.005
  numeric_only: bool = True
  gsm8k_split: Literal['test', 'dev'] = 'test'
  lama_statements: Literal['template', 'evidence'] = 'template'
  calendar_date: str = '2023-02-09'
  templama_day: str = '07-01'
  dateset_seed: int = 0
  few_shot_prompt: str = ''
  calibrate_labels: bool = False
  ensemble_adapters: bool = False
  start_token: bool = True
  min_tokens: int = 1
  number_tokens: int = 32
  tokens_per_word: int = 4
  window_tokens: int = 1024
  stride_tokens: int = 512
  bootstrap_samples: int = 1000
  seed: int = 0

  def __post_init__(self) -> None:
    check(self, number_tolerance=(0.0, 1.0), number_tokens=(1, 10_000),
          tokens_per_word=(1, 100), window_tokens=(2, 10**6), stride_tokens=(1, 10**6),
          bootstrap_samples=(1, 10**6), seed=(0, 2**31),
          dateset_seed=(0, 2**31), min_tokens=(0, 1000))
    if self.stride_tokens > self.window_tokens:
      raise UserError('EvaluationConfig.stride_tokens must not exceed window_tokens')
    for name, date in (('calendar_date', self.calendar_date),
                       ('templama_day', f'2020-{self.templama_day}')):
      if parse_iso_date(date) is None:
        raise UserError(f'EvaluationConfig.{name}: {getattr(self, name)!r} is not a date')
