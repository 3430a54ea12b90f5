"""What each way to make a model smaller costs in perplexity, and what it saves on disk.

    python experiments/compression_report.py --data_dir D --output_dir O

compresses a model in every way of METHODS and computes its perplexity on the first windows of
WikiText-2 (D/wikitext2). Texts of the calibration and of the recovery are those of
`wikipedia-sample`. The ratio of each perplexity to that of the original model has a 95% interval
over windows. O/results.jsonl has a line for each method that is finished: the same command
continues there. The table is O/report.md.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.errors import UserError
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.tasks import load_examples
from toolformer_jax.evaluation.tasks.perplexity import WIKITEXT2
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.language_model import LanguageModel

WINDOW = 512  # tokens, after the start token
_NEAREST: dict[str, Any] = {'bits': 'int4', 'rounding': 'nearest'}


@dataclass(frozen=True)
class Method:
  """A way to make a model smaller.

  Attributes:
    settings: of CompressionConfig; `layers` are those that are removed, as a negative number.
    quantization: of a GGUF file, in place of the settings.
    recovery: settings of FinetuneConfig, of the training between the settings but for their bits
      and the bits; None for no training.
  """

  settings: Mapping[str, Any] = field(default_factory=dict)
  quantization: str = ''
  recovery: Mapping[str, Any] | None = None


METHODS = {
    'float32': Method(), 'GGUF f16': Method(quantization='f16'),
    'GGUF q8_0': Method(quantization='q8_0'),
    'int8, to the nearest': Method({'bits': 'int8', 'rounding': 'nearest'}),
    'int4 in groups of 32, to the nearest': Method(_NEAREST),
    'int4 in groups of 32, GPTQ': Method({'bits': 'int4'}),
    'two layers less': Method({'layers': -2}),
    'half of the weights zero, by magnitude': Method(
        {'sparsity': 0.5, 'weight_scores': 'magnitude'}),
    'half of the weights zero, by gradient': Method(
        {'sparsity': 0.5, 'weight_scores': 'gradient'}),
    'half of the weights zero, Wanda': Method({'sparsity': 0.5}),
    'two layers less, recovered': Method({'layers': -2}, recovery={}),
    'half of the weights zero, Wanda, recovered': Method(
        {'sparsity': 0.5}, recovery={'keep_zeros': True}),
    'int4, trained for it': Method(_NEAREST, recovery={'qat': tf_jax.QatConfig()})}
# All weights learn from the original, and from the corpus.
RECOVERY = tf_jax.FinetuneConfig(
    steps=150, batch_rows=4, row_tokens=512, learning_rate=1e-4, schedule='linear',
    distillation=tf_jax.DistillationConfig())


def main() -> None:
  """Runs what is left, and writes the table."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data_dir', type=pathlib.Path, required=True, metavar='D')
  parser.add_argument('--output_dir', type=pathlib.Path, required=True, metavar='O')
  parser.add_argument('--checkpoint', default='smollm2-135m', metavar='C')
  parser.add_argument('--corpus', default='wikipedia-sample', metavar='F',
                      help='texts of the calibration and of the recovery')
  parser.add_argument('--windows', type=int, default=100, metavar='N')
  parser.add_argument('--calibration_rows', type=int, default=64, metavar='N')
  args = parser.parse_args()
  examples = load_examples(WIKITEXT2, args.data_dir, EvaluationConfig())
  args.output_dir.mkdir(parents=True, exist_ok=True)
  results = args.output_dir / 'results.jsonl'
  model = tf_jax.load_model(args.checkpoint)
  windows = text_windows(model, [example.text for example in examples], args.windows)
  if len(windows) < 2:
    raise UserError('--windows must be at least 2, and WikiText-2 long enough for them')
  settings = {'checkpoint': args.checkpoint, 'corpus': args.corpus, 'windows': len(windows),
              'calibration_rows': args.calibration_rows}
  done = finished(results, settings)
  for number, (name, method) in enumerate(METHODS.items()):
    if name in done:
      continue
    folder = args.output_dir / f'model{number}'
    small, size = compressed(model, method, folder, args)
    done[name] = {'method': name, 'settings': described(method), 'bytes': size,
                  'losses': losses(small, windows), **settings}
    with open(results, 'a', encoding='utf-8') as file:
      file.write(json.dumps(done[name]) + '\n')
    shutil.rmtree(folder)
    (args.output_dir / 'report.md').write_text(table(done), encoding='utf-8')
  print(table(done), end='')


def text_windows(model: LanguageModel, texts: list[str], count: int) -> list[list[int]]:
  """Returns the ids of the first windows of the texts, one after the other."""
  ids = [i for text in texts for i in model.tokenizer.encode(text + '\n')][:count * WINDOW]
  return [ids[start:start + WINDOW] for start in range(0, len(ids) - WINDOW + 1, WINDOW)]


def described(method: Method) -> str:
  """Returns all settings of a method."""
  return f'{method}, {RECOVERY}' if method.recovery is not None else str(method)


def finished(path: pathlib.Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
  """Returns the results of an earlier run with the same settings, by method.

  Methods whose own settings have changed since then are left out.
  """
  if not path.exists():
    return {}
  found = [json.loads(line) for line in path.read_text('utf-8').splitlines()]
  for name, value in settings.items():
    if any(one[name] != value for one in found):
      raise UserError(f'{path} was made with another {name}; choose another --output_dir')
  return {one['method']: one for one in found
          if one['settings'] == described(METHODS.get(one['method'], Method()))}


def compressed(model: LanguageModel, method: Method, path: pathlib.Path, args: argparse.Namespace
               ) -> tuple[LanguageModel, int]:
  """Returns the compressed model as it is read from disk, and the bytes of its weights there."""
  for part in ('gguf', 'small'):  # of a run that was interrupted; a training is continued
    shutil.rmtree(path / part, ignore_errors=True)
  if method.quantization:
    path = path / 'gguf'
    tf_jax.export(model, output_dir=path, format='gguf', quantization=method.quantization)
    return tf_jax.load_model(path / 'model.gguf'), (path / 'model.gguf').stat().st_size
  settings = {name: model.config.layers + value if name == 'layers' else value
              for name, value in method.settings.items()}
  config = tf_jax.CompressionConfig(calibration_rows=args.calibration_rows, **settings)
  if method.recovery is not None:
    model = recovered(model, config.without_bits, method.recovery, path, args)
    config = config.bits_alone
  result = tf_jax.compress(model, calibration(args), output_dir=path / 'small', config=config)
  return tf_jax.load_model(path / 'small'), result.weight_bytes


def recovered(model: LanguageModel, config: tf_jax.CompressionConfig, changes: Mapping[str, Any],
              path: pathlib.Path, args: argparse.Namespace) -> LanguageModel:
  """Returns what is left of a model by `config`, trained with the model as its teacher."""
  if not (path / 'start' / 'compression.json').exists():
    shutil.rmtree(path / 'start', ignore_errors=True)
    tf_jax.compress(model, calibration(args), output_dir=path / 'start', config=config)
  in_bfloat16 = tf_jax.ModelConfig(dtype='bfloat16')
  result = tf_jax.finetune(
      tf_jax.load_model(path / 'start', config=in_bfloat16), [args.corpus],
      output_dir=path / 'trained', config=dataclasses.replace(RECOVERY, **changes),
      mixture=tf_jax.MixtureConfig(dev_texts=0),
      teacher=tf_jax.load_model(args.checkpoint, config=in_bfloat16))
  if not result.finished:
    raise KeyboardInterrupt  # a signal asked for it
  return tf_jax.load_model(path / 'trained')


def calibration(args: argparse.Namespace) -> Iterator[str]:
  """Yields the texts of the calibration."""
  return (document.text for document in read_corpus(args.corpus))


def losses(model: LanguageModel, windows: list[list[int]]) -> list[float]:
  """Returns the mean loss of a token in each window, in nats."""
  requests = [ScoreRequest((), tuple(ids), tuple(range(len(ids)))) for ids in windows]
  found = score(model.for_inference(), requests, scoring_tokens=2048)
  return [-float(logprobs_T.mean(dtype=np.float64)) for logprobs_T in found]


def table(done: dict[str, dict[str, Any]]) -> str:
  """Returns the perplexities, and their ratios to that of the original model, in Markdown."""
  base = np.array(done['float32']['losses'])
  rows = ['| | perplexity | ratio [95%] | MB of weights |', '| --- | --- | --- | --- |']
  for name, result in done.items():
    found = np.array(result['losses'])
    change = found - base
    margin = 1.96 * change.std(ddof=1) / math.sqrt(len(change))
    low, mid, high = (math.exp(change.mean() + sign * margin) for sign in (-1, 0, 1))
    rows.append(f'| {name} | {math.exp(found.mean()):.2f} | {mid:.4f} [{low:.4f}, {high:.4f}] | '
                f'{result["bytes"] / 1e6:.1f} |')
  return '\n'.join(rows) + '\n'


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
