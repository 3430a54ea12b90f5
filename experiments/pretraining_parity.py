"""Trains a decoder from nothing here and in PyTorch, and compares their losses and their speed.

    python experiments/pretraining_parity.py --data_dir D --output_dir O

The decoder is that of `toolformer pretrain`, the texts are those of `wikipedia-sample`, and
WikiText-2 (D/wikitext2) is held out. PyTorch's side is `LlamaForCausalLM` of transformers with the
fused AdamW. It begins with the same weights and gets the same batches of packed rows, in which a
mask limits attention to the segment. A competent user might do without the mask, so that torch can
use its fastest attention: the time of such steps is measured as well. O is a new folder;
O/result.json has the numbers.
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.calls import DEFAULT_SYNTAX
from toolformer_jax.data.records import Document
from toolformer_jax.evaluation.config import EvaluationConfig
from toolformer_jax.evaluation.tasks import load_examples
from toolformer_jax.evaluation.tasks.perplexity import WIKITEXT2
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.tokenizer import Tokenizer
from toolformer_jax.training.examples import make_examples
from toolformer_jax.training.input_pipeline import Epochs, batch_picks
from toolformer_jax.training.mixture import build_epoch
from toolformer_jax.training.optimizer import learning_rate
from toolformer_jax.training.packing import PackedRows, pack
from toolformer_jax.training.pretraining import new_model
from toolformer_jax.training.sources import Text, as_texts
from toolformer_jax.training.tokenizer_training import train_tokenizer

MIXTURE = tf_jax.MixtureConfig(cap=10**9)
UNMASKED_STEPS = 5


def main() -> None:
  """Trains both, and prints what they reach."""
  args = parse()
  shape = tf_jax.PretrainConfig(layers=args.layers, embed_dim=192, heads=6, kv_heads=3, head_dim=32,
                                mlp_dim=512, max_positions=1024, vocab_size=args.vocab_size)
  config = tf_jax.FinetuneConfig(
      steps=args.steps, batch_rows=args.batch_rows, row_tokens=args.row_tokens, adapter=None,
      learning_rate=2e-3, warmup_fraction=0.05, schedule='cosine', final_rate=0.1,
      weight_decay=0.1, beta2=0.95, save_every=args.steps)
  texts = as_texts(args.corpus)
  held_out = load_examples(WIKITEXT2, args.data_dir, EvaluationConfig())
  dev = as_texts([Document(f'wikitext2-{i}', example.text)
                  for i, example in enumerate(held_out[:args.dev_texts])])
  tokenizer = train_tokenizer((text.document.text for text in texts), shape.vocab_size)
  start = new_model(shape, tokenizer)
  tf_jax.export(start, output_dir=args.output_dir / 'start')
  rows, dev_rows = (packed_rows(some, tokenizer, config)
                    for some in (build_epoch(texts, MIXTURE), dev))
  batches = [*itertools.islice(drawn_batches(rows, config), config.steps)]
  result = {'parameters': sum(array.size for array in _leaves(start)),
            'tokens': sum(int((batch.loss_weights_RT > 0).sum()) for batch in batches),
            'steps': config.steps}
  result |= {'theirs': theirs(args.output_dir / 'start', batches, dev_rows, config),
             'ours': ours(texts, dev, tokenizer, shape, config, args.output_dir / 'ours')}
  ours_loss, their_loss = (result[side]['dev_loss'] for side in ('ours', 'theirs'))
  result['loss_ratio'] = ours_loss / their_loss
  result['speed_ratio'] = result['theirs']['step_s'] / result['ours']['step_s']
  result['speed_ratio_unmasked'] = result['theirs']['unmasked_step_s'] / result['ours']['step_s']
  (args.output_dir / 'result.json').write_text(json.dumps(result) + '\n', encoding='utf-8')
  print(json.dumps(result))


def parse() -> argparse.Namespace:
  """Parses the command line."""
  parser = cli.Parser(description=__doc__,
                      formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--data_dir', type=pathlib.Path, required=True, metavar='D')
  parser.add_argument('--output_dir', type=pathlib.Path, required=True, metavar='O')
  parser.add_argument('--corpus', default='wikipedia-sample', metavar='F')
  for name, default in (('steps', 200), ('batch_rows', 16), ('row_tokens', 256), ('layers', 6),
                        ('vocab_size', 8192), ('dev_texts', 400)):
    parser.add_argument(f'--{name}', type=int, default=default, metavar='N')
  return parser.parse_args()


def _leaves(model: LanguageModel) -> list[Any]:
  import jax
  return jax.tree.leaves(model.variables)


def packed_rows(texts: list[Text], tokenizer: Tokenizer, config: tf_jax.FinetuneConfig
                ) -> PackedRows:
  """Returns texts as the trainer packs them."""
  examples = make_examples(texts, tokenizer, DEFAULT_SYNTAX, mask_results=config.mask_results,
                           without_calls=False)
  return pack(examples, tokenizer, config.row_tokens, config.end_of_text)


def drawn_batches(rows: PackedRows, config: tf_jax.FinetuneConfig) -> Iterator[PackedRows]:
  """Yields batches in the order of the trainer."""
  epochs = Epochs(rows)
  return map(epochs.rows, batch_picks(epochs, config.batch_rows, config.seed, 0))


def ours(texts: list[Text], dev: list[Text], tokenizer: Tokenizer, shape: tf_jax.PretrainConfig,
         config: tf_jax.FinetuneConfig, output_dir: pathlib.Path) -> dict[str, float]:
  """Trains with this package."""
  trained = tf_jax.pretrain(texts, output_dir=output_dir, tokenizer=tokenizer, dev=dev, shape=shape,
                            config=config, mixture=MIXTURE)
  steps = [one for one in trained.to_records() if 'step_s' in one]
  dev_loss, = (one['dev_loss'] for one in trained.to_records() if 'dev_loss' in one)
  return {'dev_loss': dev_loss, 'loss_of_last_step': steps[-1]['loss'],
          'step_s': statistics.median(one['step_s'] for one in steps)}


def theirs(start: pathlib.Path, batches: list[PackedRows], dev: PackedRows,
           config: tf_jax.FinetuneConfig) -> dict[str, float]:
  """Trains with transformers and PyTorch."""
  import torch
  import transformers
  model = transformers.AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
  matrices, scales = ([p for p in model.parameters() if (p.ndim > 1) == large]
                      for large in (True, False))
  optimizer = torch.optim.AdamW(
      [{'params': matrices, 'weight_decay': config.weight_decay},
       {'params': scales, 'weight_decay': 0.0}],
      lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True)
  def update(batch: PackedRows, step: int, masked: bool = True) -> tuple[float, float]:
    began = time.perf_counter()
    for group in optimizer.param_groups:
      group['lr'] = float(learning_rate(step, config))
    loss_sum, weight_sum = _torch_loss(model, batch, masked)
    (loss_sum / weight_sum).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float((loss_sum / weight_sum).detach()), time.perf_counter() - began
  steps = [update(batch, step) for step, batch in enumerate(batches)]
  with torch.inference_mode():
    parts = [_torch_loss(model, dev.take(range(i, min(i + config.batch_rows, len(dev)))), True)
             for i in range(0, len(dev), config.batch_rows)]
  dev_loss = float(sum(part[0] for part in parts) / sum(part[1] for part in parts))
  unmasked = [update(batch, config.steps, masked=False)[1] for batch in batches[:UNMASKED_STEPS]]
  return {'dev_loss': dev_loss, 'loss_of_last_step': steps[-1][0],
          'step_s': statistics.median(seconds for _, seconds in steps),
          'unmasked_step_s': statistics.median(unmasked)}


def _torch_loss(model: Any, rows: PackedRows, masked: bool) -> tuple[Any, Any]:
  """Returns the sum of the weighted losses of rows, and that of the weights."""
  import torch
  batch = {field.name: torch.from_numpy(np.ascontiguousarray(getattr(rows, field.name))).long()
           for field in dataclasses.fields(rows)}
  attended = {}
  if masked:
    segments_RT = batch['segment_ids_RT']
    same_RTS = segments_RT[:, :, None] == segments_RT[:, None]
    attended = {'attention_mask': torch.tril(same_RTS)[:, None],
                'position_ids': batch['positions_RT']}
  logits_RTV = model(batch['input_tokens_RT'], use_cache=False, **attended).logits
  losses = torch.nn.functional.cross_entropy(
      logits_RTV.flatten(0, 1), batch['target_tokens_RT'].flatten(), reduction='none')
  weights = torch.from_numpy(rows.loss_weights_RT).flatten()
  return (losses * weights).sum(), weights.sum()


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=False))
