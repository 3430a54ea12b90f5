"""What each way to make a model smaller costs in perplexity, and what it saves on disk.

    python experiments/compression_report.py --data_dir D --output_dir O

compresses a model in every way of METHODS and computes its perplexity on the first windows of
WikiText-2 (D/wikitext2). Calibration texts are those of `wikipedia-sample`. The ratio of each
perplexity to that of the original model has a 95% interval over windows. Nothing is tuned after
compression. O/results.jsonl has a line for each method that is finished: the same command continues
there. The table is O/report.md.
"""

import argparse
import json
import math
import pathlib
import shutil
import sys
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
# Settings of CompressionConfig, or the quantization of a GGUF file.
METHODS: dict[str, dict[str, Any] | str] = {
    'float32': {}, 'GGUF q8_0': 'q8_0',
    'int4 in groups of 32, to the nearest': {'bits': 'int4', 'rounding': 'nearest'},
    'int4 in groups of 32, GPTQ': {'bits': 'int4'},
    'two layers less, by block influence': {'layers': -2},
    'half of the weights zero, by magnitude': {'sparsity': 0.5, 'weight_scores': 'magnitude'},
    'half of the weights zero, Wanda': {'sparsity': 0.5}}


def main() -> None:
  """Runs what is left, and writes the table."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data_dir', type=pathlib.Path, required=True, metavar='D')
  parser.add_argument('--output_dir', type=pathlib.Path, required=True, metavar='O')
  parser.add_argument('--checkpoint', default='smollm2-135m', metavar='C')
  parser.add_argument('--corpus', default='wikipedia-sample', metavar='F', help='calibration texts')
  parser.add_argument('--windows', type=int, default=100, metavar='N')
  parser.add_argument('--calibration_rows', type=int, default=64, metavar='N')
  args = parser.parse_args()
  examples = load_examples(WIKITEXT2, args.data_dir, EvaluationConfig())
  args.output_dir.mkdir(parents=True, exist_ok=True)
  results = args.output_dir / 'results.jsonl'
  model = tf_jax.load_model(args.checkpoint)
  windows = text_windows(model, [example.text for example in examples], args.windows)
  settings = {'checkpoint': args.checkpoint, 'corpus': args.corpus, 'windows': len(windows),
              'calibration_rows': args.calibration_rows}
  done = finished(results, settings)
  for name, method in METHODS.items():
    if name in done:
      continue
    small, size = compressed(model, method, args.output_dir / 'model', args)
    done[name] = {'method': name, 'bytes': size, 'losses': losses(small, windows), **settings}
    with open(results, 'a', encoding='utf-8') as file:
      file.write(json.dumps(done[name]) + '\n')
    (args.output_dir / 'report.md').write_text(table(done), encoding='utf-8')
  print(table(done), end='')


def text_windows(model: LanguageModel, texts: list[str], count: int) -> list[list[int]]:
  """Returns the ids of the first windows of the texts, one after the other."""
  ids = [i for text in texts for i in model.tokenizer.encode(text + '\n')][:count * WINDOW]
  return [ids[start:start + WINDOW] for start in range(0, len(ids) - WINDOW + 1, WINDOW)]


def finished(path: pathlib.Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
  """Returns the results of an earlier run with the same settings, by method."""
  if not path.exists():
    return {}
  found = [json.loads(line) for line in path.read_text('utf-8').splitlines()]
  for name, value in settings.items():
    if any(one[name] != value for one in found):
      raise UserError(f'{path} was made with another {name}; choose another --output_dir')
  return {one['method']: one for one in found}


def compressed(model: LanguageModel, method: dict[str, Any] | str, path: pathlib.Path,
               args: argparse.Namespace) -> tuple[LanguageModel, int]:
  """Returns the compressed model as it is read from disk, and the bytes of its weights there."""
  shutil.rmtree(path, ignore_errors=True)
  if isinstance(method, str):
    tf_jax.export(model, output_dir=path, format='gguf', quantization=method)
    return tf_jax.load_model(path / 'model.gguf'), (path / 'model.gguf').stat().st_size
  method = {name: model.config.layers + value if name == 'layers' else value
            for name, value in method.items()}
  config = tf_jax.CompressionConfig(calibration_rows=args.calibration_rows, **method)
  texts = (document.text for document in read_corpus(args.corpus))
  result = tf_jax.compress(model, texts, output_dir=path, config=config)
  return tf_jax.load_model(path), result.weight_bytes


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
