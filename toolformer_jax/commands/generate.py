"""Continues texts; the model can call tools while it writes.

Prints each text with its continuation, in which calls are shown, in the order of the texts and as
soon as it is finished; a single text while it is generated. With --json, a line is printed for each
text: {"text": ..., "calls": [{"tool": ..., "argument": ..., "result": ..., "failure": ...}]}. Calls
without a result (null) have been removed from the text; `failure` says why.

Examples:
  toolformer generate --checkpoint runs/tuned --tools calculator --prompt 'In all she has'
  toolformer generate --checkpoint runs/tuned --tools calculator --input prompts.txt --json
"""

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolformer_jax.commands import options
from toolformer_jax.data.input_texts import InputText, read_prompts
from toolformer_jax.data.jsonl import is_unicode
from toolformer_jax.errors import UserError
from toolformer_jax.media.limits import MediaLimits
from toolformer_jax.media.table import MediaTable
from toolformer_jax.runtime.standard_output import print_result
from toolformer_jax.tools.base import Context

if TYPE_CHECKING:
  from toolformer_jax.inference.request import GeneratedText


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options."""
  options.add_checkpoint(parser)
  parser.add_argument('--tools', default=[], metavar='A,B', type=options.names,
                      help='tools that texts may call, separated by commas; see annotate --help '
                           '(default: none)')
  given = parser.add_mutually_exclusive_group(required=True)
  given.add_argument('--prompt', metavar='T', help='the text to continue')
  given.add_argument('--input', type=options.path, metavar='F',
                     help='file of texts to continue: JSON Lines of {id, text, media} (.jsonl, '
                          '.jsonl.gz, .jsonl.zst); in any other file, each line is a text')
  options.add_media(parser)
  parser.add_argument('--disable_tools', action='store_true',
                      help='never let the model start a call')
  options.add_call_store(parser)
  options.add_date(parser)
  parser.add_argument('--json', action='store_true', help='print JSON, a line for each text')
  options.add_configuration(parser)


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  disabled = ['GenerationConfig.disable_tools = True'] if args.disable_tools else []
  config = options.configuration(args, *disabled)
  texts = _texts(args, config.toolbox.media)
  from toolformer_jax import api
  from toolformer_jax.tools.registry import build_tools
  with options.call_store(args) as store:
    tools = build_tools(args.tools, config.toolbox, store)
    model = api.load_model(
        args.checkpoint, config=config.model, adapter=args.adapter).for_inference()
    printer = Printer(texts, args.json)
    try:
      api.generate(
          model, [text.text for text in texts], tools=tools, config=config.generation,
          engine_config=config.engine, executor_config=config.executor, syntax=config.syntax,
          contexts=[Context(date=text.date or args.date, media=MediaTable(text.media))
                    for text in texts],
          call_store=store,
          on_text=printer.add_piece, on_finished=printer.finish,
          names=[text.where for text in texts])
    finally:
      printer.end_line()  # also before an error message


def _texts(args: argparse.Namespace, limits: MediaLimits) -> list[InputText]:
  """Returns the texts to continue, each with its media."""
  if args.input is None:
    if not is_unicode(args.prompt):
      raise UserError('--prompt: the text is not UTF-8')
    media = MediaTable.from_files(args.media, limits).media
    return [InputText(None, args.prompt, None, '--prompt', media)]
  if args.media:
    raise UserError('--media belongs to --prompt; in a file of --input, each line has its own '
                    '`media`')
  texts = list(read_prompts(args.input, limits))
  if not texts:
    raise UserError(f'{args.input} has no text')
  return texts


class Printer:
  """Prints texts in their order, each as soon as it and those before it are finished.

  A single text is printed piece by piece, unless JSON is wanted.
  """

  def __init__(self, texts: Sequence[InputText], as_json: bool):
    """Prints nothing yet."""
    self._texts, self._as_json = texts, as_json
    self._waiting: dict[int, GeneratedText] = {}
    self._next = 0
    self._in_line = False

  def add_piece(self, number: int, piece: str) -> None:
    """Prints the next piece of the only text."""
    if len(self._texts) == 1 and not self._as_json:
      print_result(piece if self._in_line else self._texts[0].text + piece, end='')
      self._in_line = True

  def finish(self, number: int, output: 'GeneratedText') -> None:
    """Prints a finished text and those that waited for it."""
    self._waiting[number] = output
    while self._next in self._waiting and not self._in_line:
      print_result(self._shown(self._texts[self._next], self._waiting.pop(self._next)))
      self._next += 1

  def end_line(self) -> None:
    """Ends a line that was begun."""
    if self._in_line:
      print_result('')
      self._in_line = False

  def _shown(self, text: InputText, output: 'GeneratedText') -> str:
    whole = text.text + output.text
    if not self._as_json:
      return whole
    calls = [{'tool': made.call.name, 'argument': made.call.argument, 'result': made.call.result,
              'failure': made.failure} for made in output.calls]
    return json.dumps({'text': whole, 'calls': calls}, ensure_ascii=False)
