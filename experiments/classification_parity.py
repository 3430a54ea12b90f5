"""Tunes a model to classify texts here and with PEFT, and compares their accuracy and their speed.

    python experiments/classification_parity.py --task sib200 --groups en \\
        --data_dir D --output_dir O

Both sides begin with the same weights and the same LoRA, and get the same examples in the same
order, with a loss for the tokens of the label alone. Ours packs the examples of a batch into rows.
The other side is transformers with PEFT: a batch is padded to its longest example, and has an
attention mask and the fused AdamW. There the adapter is merged before the test, and all labels
read the keys and values of their prompt, as here. `--limit` takes questions from all over the
test split, which may be sorted by label. O/result.json has the numbers: `_s` are seconds on the
clock, and compare only on a machine without other work; `_cpu_s` are those of the processor, which
other work changes little. Those of our training and evaluation contain the compilation, and
`step_s`, the median of the steps after the first one, does not.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from pretraining_parity import drawn_batches, packed_rows

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.confidence_intervals import bootstrap_accuracy_difference, wilson
from toolformer_jax.evaluation.files import TaskFolder
from toolformer_jax.evaluation.label_scoring import predict_labels, target_text
from toolformer_jax.evaluation.task import ClassificationTask, Question
from toolformer_jax.evaluation.tasks import load_split, trainable_task
from toolformer_jax.experiments.task_data import task_rows
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.adapters import add_adapter
from toolformer_jax.training.mixture import build_epoch
from toolformer_jax.training.optimizer import learning_rate
from toolformer_jax.training.packing import PackedRows
from toolformer_jax.training.sources import TaskRow

MIXTURE = tf_jax.MixtureConfig(cap=10**9, dev_texts=0)
SCORING_TOKENS = 1024  # of labels in a batch, on both sides
IGNORED = -100  # what transformers calls a target without a loss


def main() -> None:
  """Tunes and tests both, and prints what they reach."""
  args = parse()
  task = in_groups(args.task, args.groups, args.data_dir)
  config = tf_jax.FinetuneConfig(
      steps=args.steps, batch_rows=args.batch_rows, row_tokens=args.row_tokens,
      adapter=tf_jax.LoraConfig(rank=args.rank), learning_rate=1e-3, save_every=args.steps)
  texts = list(task_rows(task, args.data_dir))
  questions = spread(load_split(task, args.data_dir, 'test'), args.limit)
  base = tf_jax.load_model(args.checkpoint)
  start = add_adapter(base, config)
  paths = {name: args.output_dir / name for name in ('base', 'adapter', 'ours')}
  tf_jax.export(base, output_dir=paths['base'])
  tf_jax.export(start, output_dir=paths['adapter'], adapter_of=str(paths['base']))
  rows = packed_rows(build_epoch(texts, MIXTURE), base.tokenizer, config)
  batches = [*itertools.islice(drawn_batches(rows, config), config.steps)]
  sides = {'ours': ours(start, texts, questions, config, paths['ours']),
           'theirs': theirs(paths, base.tokenizer, batches, questions, config)}
  result = {'task': args.task, 'steps': config.steps, 'questions': len(questions),
            'examples': sum(int(batch.segment_ids_RT.max(1).sum()) for batch in batches),
            'tokens': sum(int((batch.segment_ids_RT > 0).sum()) for batch in batches),
            **compared(sides, questions)}
  (args.output_dir / 'result.json').write_text(json.dumps(result) + '\n', encoding='utf-8')
  print(json.dumps(result))


def parse() -> argparse.Namespace:
  """Parses the command line."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--task', required=True, metavar='T', help='banking77, sib200, ...')
  parser.add_argument('--groups', nargs='*', default=[], metavar='G',
                      help='parts of the task, such as the language en; by default all')
  parser.add_argument('--data_dir', required=True, metavar='D')
  parser.add_argument('--output_dir', type=pathlib.Path, required=True, metavar='O')
  parser.add_argument('--checkpoint', default='smollm2-135m', metavar='C')
  parser.add_argument('--limit', type=int, metavar='N', help='test questions; by default all')
  for name, default in (('steps', 48), ('batch_rows', 4), ('row_tokens', 256), ('rank', 16)):
    parser.add_argument(f'--{name}', type=int, default=default, metavar='N')
  return parser.parse_args()


def in_groups(name: str, groups: Sequence[str], data_dir: str) -> ClassificationTask:
  """Returns a task of classification whose splits have only the questions of `groups`, if any."""
  task = trainable_task(name, '--task', data_dir)
  if not isinstance(task, ClassificationTask):
    raise UserError(f'--task {name}: its answers are not labels; try banking77 or sib200')
  def read_split(folder: TaskFolder, split: str) -> Iterator[Question]:
    return (one for one in task.read_split(folder, split) if not groups or one.group in groups)
  return dataclasses.replace(task, read_split=read_split)


def spread(questions: list[Question], limit: int | None) -> list[Question]:
  """Returns `limit` questions at equal distances."""
  count = min(limit or len(questions), len(questions))
  return [questions[i * len(questions) // count] for i in range(count)]


def measured(name: str, work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
  """Returns the result of `work`, and its seconds on the clock and on the processor."""
  began, cpu_began = time.perf_counter(), time.process_time()
  result = work()
  return result, {f'{name}_s': time.perf_counter() - began,
                  f'{name}_cpu_s': time.process_time() - cpu_began}


def ours(start: LanguageModel, texts: list[TaskRow], questions: list[Question],
         config: tf_jax.FinetuneConfig, output_dir: pathlib.Path) -> dict[str, Any]:
  """Tunes and tests with this package."""
  tuned, training = measured('training', lambda: tf_jax.finetune(
      start, texts, output_dir=output_dir, config=config, mixture=MIXTURE))
  found, evaluation = measured(
      'evaluation', lambda: predict_labels(tuned.model.for_inference(), questions))
  steps = tuned.to_records()
  return {'losses': [step['loss'] for step in steps],
          'step_s': statistics.median(step['step_s'] for step in steps[1:] or steps),
          **training, **evaluation,
          'computed_tokens': config.steps * config.batch_rows * config.row_tokens,
          'predictions': [one.prediction for one in found]}


def theirs(paths: dict[str, pathlib.Path], tokenizer: Tokenizer, batches: list[PackedRows],
           questions: list[Question], config: tf_jax.FinetuneConfig) -> dict[str, Any]:
  """Tunes and tests with transformers and PEFT."""
  import peft
  import torch
  import transformers
  base = transformers.AutoModelForCausalLM.from_pretrained(paths['base'], dtype=torch.float32)
  model = peft.PeftModel.from_pretrained(base, paths['adapter'], is_trainable=True).train()
  steps, training = measured('training', lambda: tune(model, batches, config))
  merged = model.merge_and_unload().eval()
  found, evaluation = measured('evaluation', lambda: likeliest(merged, tokenizer, questions))
  losses, seconds, tokens = zip(*steps, strict=True)
  return {'losses': losses, 'step_s': statistics.median(seconds[1:] or seconds),
          **training, **evaluation, 'computed_tokens': sum(tokens), 'predictions': found}


def tune(model: Any, batches: list[PackedRows], config: tf_jax.FinetuneConfig
         ) -> list[tuple[float, float, int]]:
  """Trains the adapter of PEFT; returns the loss, the seconds and the tokens of each step."""
  import torch
  weights = [weight for weight in model.parameters() if weight.requires_grad]
  optimizer = torch.optim.AdamW(weights, lr=config.learning_rate, fused=True,
                                betas=(config.beta1, config.beta2),
                                weight_decay=config.weight_decay)
  def update(step: int, batch: PackedRows) -> tuple[float, float, int]:
    began = time.perf_counter()
    for group in optimizer.param_groups:
      group['lr'] = float(learning_rate(step, config))
    padded = padded_batch(batch)
    loss = model(**padded, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach()), time.perf_counter() - began, padded['input_ids'].numel()
  return [update(step, batch) for step, batch in enumerate(batches)]


def padded_batch(rows: PackedRows) -> dict[str, Any]:
  """Returns the sequences in `rows`, each in a row of its own that is padded to the longest."""
  sequences = [_sequence(rows, row, segment) for row in range(len(rows))
               for segment in range(1, rows.segment_ids_RT[row].max() + 1)]
  ids, labels = zip(*sequences, strict=True)
  return {'input_ids': _pad(ids), 'labels': _pad(labels, IGNORED),
          'attention_mask': _pad([np.ones(len(one)) for one in ids])}


def _sequence(rows: PackedRows, row: int, segment: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the ids of a sequence, and the targets of its loss, which transformers shifts."""
  at = row, rows.segment_ids_RT[row] == segment
  targets = rows.target_tokens_RT[at]
  ids = np.append(rows.input_tokens_RT[at], targets[-1])
  return ids, np.append(IGNORED, np.where(rows.loss_weights_RT[at] > 0, targets, IGNORED))


def _pad(sequences: Sequence[Sequence[int] | np.ndarray], value: int = 0, side: str = 'right'
         ) -> Any:
  import torch
  return torch.nn.utils.rnn.pad_sequence(
      [torch.as_tensor(one, dtype=torch.long) for one in sequences], batch_first=True,
      padding_value=value, padding_side=side)


def likeliest(model: Any, tokenizer: Tokenizer, questions: list[Question]) -> list[str]:
  """Returns the likeliest label of each question; prompts of similar lengths are batched."""
  import torch
  start = [] if tokenizer.start_id is None else [tokenizer.start_id]
  prompts = [[*start, *tokenizer.encode(question.prompt)] for question in questions]
  labels = questions[0].labels
  label_ids = [tokenizer.encode(target_text(label)) for label in labels]
  at_once = max(1, SCORING_TOKENS // (len(labels) * max(map(len, label_ids))))
  order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
  scores = np.zeros((len(prompts), len(labels)))
  with torch.inference_mode():
    for first in range(0, len(order), at_once):
      members = order[first:first + at_once]
      scores[members] = label_logprobs(model, [prompts[i] for i in members], label_ids)
  return [labels[i] for i in scores.argmax(1)]


def label_logprobs(model: Any, prompts: Sequence[list[int]], label_ids: Sequence[list[int]]
                   ) -> np.ndarray:
  """Returns log p(label | prompt), [P, L]; prompts are padded on the left, labels on the right."""
  import torch
  P, L, T = len(prompts), len(label_ids), max(map(len, label_ids))
  mask_PS = _pad([[1] * len(prompt) for prompt in prompts], side='left')
  output = model(_pad(prompts, side='left'), attention_mask=mask_PS, use_cache=True,
                 position_ids=(mask_PS.cumsum(1) - 1).clamp(min=0), logits_to_keep=1)
  labels_LT, counts_LT = _pad(label_ids), _pad([[1] * len(ids) for ids in label_ids])
  first_PL = output.logits[:, -1].log_softmax(-1)[:, labels_LT[:, 0]]
  output.past_key_values.batch_repeat_interleave(L)
  positions_PT = mask_PS.sum(1, keepdim=True) + torch.arange(T - 1)
  mask_BT = torch.nn.functional.pad(mask_PS, (0, T - 1), value=1).repeat_interleave(L, 0)
  logits_BTV = model(labels_LT[:, :-1].repeat(P, 1), attention_mask=mask_BT,
                     position_ids=positions_PT.repeat_interleave(L, 0),
                     past_key_values=output.past_key_values).logits
  losses = torch.nn.functional.cross_entropy(
      logits_BTV.flatten(0, 1), labels_LT[:, 1:].repeat(P, 1).flatten(), reduction='none')
  rest_PL = -(losses.view(P, L, T - 1) * counts_LT[:, 1:]).sum(-1)
  return (first_PL + rest_PL).numpy()


def compared(sides: dict[str, dict[str, Any]], questions: list[Question]) -> dict[str, Any]:
  """Returns the numbers of both sides, with their accuracies, and how they compare."""
  predictions = {name: side.pop('predictions') for name, side in sides.items()}
  right = {name: [label == question.answers[0] for label, question in
                  zip(found, questions, strict=True)] for name, found in predictions.items()}
  for name, side in sides.items():
    side['accuracy'] = statistics.mean(right[name])
    side['interval'] = wilson(sum(right[name]), len(questions))
  first, second = sides['ours'], sides['theirs']
  return {**sides, 'accuracy_difference': first['accuracy'] - second['accuracy'],
          'difference_interval': bootstrap_accuracy_difference(
              right['theirs'], right['ours'], samples=1000, seed=0),
          'equal_predictions': statistics.mean(
              one == other for one, other in zip(*predictions.values(), strict=True)),
          **{f'{name}_ratio': second[name] / first[name]
             for name in ('step_s', 'training_cpu_s', 'evaluation_s', 'evaluation_cpu_s')}}


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
