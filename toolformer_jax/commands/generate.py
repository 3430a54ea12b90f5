"""Continues texts; the model can call tools while it writes.

Prints each text with its continuation, in which calls are shown. A single text is printed while it
is generated. With --json, a line is printed for each text:
{"text": ..., "calls": [{"tool": ..., "argument": ..., "result": ...}]}. Calls without a result
(null) have been removed from the text.

Examples:
  toolformer generate --checkpoint runs/tuned --tools calculator --prompt 'In all she has'
  toolformer generate --checkpoint runs/tuned --tools calculator --input prompts.txt --json
"""

import argparse
import json
import pathlib
from typing import TYPE_CHECKING

from toolformer_jax.commands import options
from toolformer_jax.data.input_texts import InputText, read_prompts
from toolformer_jax.data.jsonl import is_unicode
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.standard_output import print_result
from toolformer_jax.tools.base import Context

if TYPE_CHECKING:
  from toolformer_jax.inference.request import GeneratedText


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser)
  options.add_tools(parser)
  given = parser.add_mutually_exclusive_group(required=True)
  given.add_argument('--prompt', metavar='T', help='the text to continue')
  given.add_argument('--input', type=pathlib.Path, metavar='F',
                     help='file of texts to continue: JSON Lines of {id, text} (.jsonl, .jsonl.gz, '
                          '.jsonl.zst); in any other file, each line is a text')
  parser.add_argument('--disable_tools', action='store_true',
                      help='never let the model start a call')
  options.add_call_store(parser)
  options.add_date(parser)
  parser.add_argument('--json', action='store_true', help='print JSON, a line for each text')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  from toolformer_jax import api
  from toolformer_jax.tools.registry import build_tools
  disabled = ['GenerationConfig.disable_tools = True'] if args.disable_tools else []
  config = options.configuration(args, *disabled)
  texts = _texts(args)
  with options.call_store(args) as store:
    tools = build_tools(args.tools, config.toolbox, store)
    model = api.load_model(args.checkpoint, config=config.model).for_inference()
    stream = _Stream(texts[0].text) if len(texts) == 1 and not args.json else None
    try:
      outputs = api.generate(
          model, [text.text for text in texts], tools=tools, config=config.generation,
          engine_config=config.engine, executor_config=config.executor, syntax=config.syntax,
          contexts=[Context(date=text.date or args.date) for text in texts], call_store=store,
          on_text=stream, names=[text.where for text in texts])
    finally:
      if stream and stream.begun:
        print_result('')  # Ends the line, also before an error message.
  if not (stream and stream.begun):
    for text, output in zip(texts, outputs, strict=True):
      print_result(_shown(text, output, args.json))


def _texts(args: argparse.Namespace) -> list[InputText]:
  if args.input is None:
    if not is_unicode(args.prompt):
      raise UserError('--prompt: the text is not UTF-8')
    return [InputText(None, args.prompt, None, '--prompt')]
  texts = list(read_prompts(args.input))
  if not texts:
    raise UserError(f'{args.input} has no text')
  return texts


class _Stream:
  """Prints a text and the pieces of its continuation; nothing before the first piece."""

  def __init__(self, text: str):
    """Prints nothing yet of `text`."""
    self._text, self.begun = text, False

  def __call__(self, number: int, piece: str) -> None:
    """Prints the next piece of the only text."""
    print_result(piece if self.begun else self._text + piece, end='')
    self.begun = True


def _shown(text: InputText, continuation: 'GeneratedText', as_json: bool) -> str:
  whole = text.text + continuation.text
  if not as_json:
    return whole
  calls = [{'tool': made.call.name, 'argument': made.call.argument, 'result': made.call.result}
           for made in continuation.calls]
  return json.dumps({'text': whole, 'calls': calls}, ensure_ascii=False)
