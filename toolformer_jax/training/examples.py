"""Tokenizes the texts to train on, with their calls, and weights the loss of each token."""

import bisect
import dataclasses
from collections.abc import Sequence

from toolformer_jax import calls
from toolformer_jax.data.records import AnnotatedDocument, ScoredCall
from toolformer_jax.errors import UserError
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.packing import Example
from toolformer_jax.training.sources import TaskRow, Text


def make_examples(texts: Sequence[Text], tokenizer: Tokenizer, syntax: calls.CallSyntax, *,
                  mask_results: bool = False, without_calls: bool = False) -> list[Example]:
  """Returns an example for each text; with `without_calls`, the calls are removed first."""
  def example(text: Text) -> Example:
    if isinstance(text, TaskRow):
      return task_example(text, tokenizer)
    if without_calls:
      text = dataclasses.replace(text, calls=())
    return annotated_example(text, tokenizer, syntax, mask_results)
  return [example(text) for text in texts]


def annotated_example(record: AnnotatedDocument, tokenizer: Tokenizer,
                      syntax: calls.CallSyntax = calls.DEFAULT_SYNTAX,
                      mask_results: bool = False) -> Example:
  """Returns the text with its calls (x* in the paper, section 2).

  The ids of the text itself are those of the text without calls (law 1). All tokens count in the
  loss, as in the paper; with `mask_results` the tokens of ` result]` do not. The run may have had
  another tokenizer: see `token_position`.

  Raises:
    UserError: a call's position is outside the text, or a call cannot be written.
  """
  for call in record.calls:
    _check_call(record.document.id, call, syntax)
  try:
    inserted = [(token_position(call, record.document.text, tokenizer), call.call())
                for call in record.calls]
  except UserError as error:
    raise UserError(f'document {record.document.id}: {error}') from error
  masked = {syntax.closing(call.result or '') for _, call in inserted} if mask_results else set()
  ids = tokenizer.encode(record.document.text)
  # Ids and weights are inserted by the same function, so that they always have the same length.
  def piece_weights(piece: str) -> list[float]:
    return [0.0 if piece in masked else 1.0] * len(tokenizer.encode(piece))
  try:
    return Example(calls.insert_calls(ids, inserted, tokenizer.encode, syntax),
                   calls.insert_calls([1.0] * len(ids), inserted, piece_weights, syntax))
  except ValueError as error:
    raise UserError(f'document {record.document.id}: {error}; was it annotated with the tokenizer '
                    'of another model, and by a version that wrote no char_offset?') from error


def token_position(call: ScoredCall, text: str, tokenizer: Tokenizer) -> int:
  """Returns the index of the token of `text` that a call comes before.

  `call.position` counts the tokens of the run's tokenizer. Where they are not those of `tokenizer`,
  the call comes before the token that has the character after it.

  Raises:
    UserError: the call's `char_offset` is outside the text.
  """
  if call.char_offset is None:
    return call.position
  if call.char_offset > len(text):
    raise UserError(f'the call of {call.tool} with the argument {call.argument!r:.80} is at '
                    f'character {call.char_offset}, but the text has {len(text)}')
  starts = [*tokenizer.character_offsets(text), len(text)]
  if call.position < len(starts) and starts[call.position] == call.char_offset:
    return call.position
  first = bisect.bisect_left(starts, call.char_offset)
  return first if starts[first:first + 1] == [call.char_offset] else first - 1


def _check_call(document_id: str, call: ScoredCall, syntax: calls.CallSyntax) -> None:
  """Raises UserError if a call has no result, or would not be read as it is written."""
  if call.result is None:
    raise UserError(f'document {document_id}: the call of {call.tool} with the argument '
                    f'{call.argument!r:.80} has no result')
  try:
    syntax.linearise(call.call())
  except ValueError as error:
    raise UserError(f'document {document_id}: {error}') from error


def task_example(row: TaskRow, tokenizer: Tokenizer) -> Example:
  """Returns the inputs and targets of a seqio example; only the targets count in the loss.

  Raises:
    UserError: ids are of another tokenizer, or outside the model's vocabulary.
  """
  if row.tokenizer and row.tokenizer.token_ids_sha256 != tokenizer.token_ids_sha256:
    raise UserError(f'{row.id}: the vocabulary of its task has the tokens of another model; make '
                    'it with the tokenizer of the model that is trained')
  inputs, targets = (tokenizer.encode(piece) if isinstance(piece, str) else [int(i) for i in piece]
                     for piece in (row.inputs, row.targets))
  if unknown := [i for i in (*inputs, *targets) if not 0 <= i < tokenizer.vocab_size]:
    raise UserError(f'{row.id}: the model has no token {unknown[0]}; was the task tokenized for '
                    'another model?')
  weights = [float(weight) for weight in row.loss_weights] or [1.0] * len(targets)
  if len(weights) != len(targets):
    raise UserError(f'{row.id}: {len(targets)} targets, but {len(weights)} loss weights')
  return Example(inputs + targets, [0.0] * len(inputs) + weights)
