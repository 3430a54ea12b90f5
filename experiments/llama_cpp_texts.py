"""Greedy texts of GGUF files, by this package and by llama.cpp.

    pip install xllamacpp
    python experiments/llama_cpp_texts.py --output_dir O [--checkpoint smollm2-135m]

writes the model as GGUF files in new folders of O, continues the beginnings of 20 Wikipedia pages
by 32 tokens with both programs, and counts equal texts. Where two differ, it prints by how many
nats this package prefers its own token at the first difference: llama.cpp rounds activations to 8
bits ahead of products with weights of 8 bits, which turns the choice between tokens that are almost
as likely.
"""

import argparse
import hashlib
import json
import os
import pathlib
import sys
from typing import Any

import toolformer_jax as tf_jax
from toolformer_jax import cli
from toolformer_jax.data.corpus import read_corpus
from toolformer_jax.errors import UserError
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.models.language_model import LanguageModel

TOKENS = 32
_CHARACTERS = 100  # of a prompt
_MAX_WORDS = 80  # of the pages that prompts are taken from


def main() -> None:
  """Reads the options, and compares the files."""
  parser = cli.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument('--output_dir', type=pathlib.Path, required=True, metavar='O')
  parser.add_argument('--checkpoint', default='smollm2-135m', metavar='C')
  parser.add_argument('--prompts', type=int, default=20, metavar='N')
  parser.add_argument('--quantizations', nargs='+', default=['f16', 'q8_0'], metavar='Q')
  args = parser.parse_args()
  prompts = beginnings(args.prompts)
  for quantization in args.quantizations:
    folder = args.output_dir / quantization
    tf_jax.export(args.checkpoint, output_dir=folder, format='gguf', quantization=quantization)
    print(compare(folder / 'model.gguf', quantization, prompts))


def beginnings(count: int) -> list[str]:
  """Returns the beginnings of short Wikipedia pages, whole words, the same ones each time."""
  pages = [page.text for page in read_corpus('wikipedia-sample')
           if len(page.text.split()) <= _MAX_WORDS]
  pages.sort(key=lambda text: hashlib.sha256(text.encode()).digest())
  return [text[:_CHARACTERS].rpartition(' ')[0] for text in pages[:count]]


def compare(path: pathlib.Path, name: str, prompts: list[str]) -> str:
  """Returns how many of the texts are equal, and a line for each that is not."""
  model = tf_jax.load_model(path)
  ours = tf_jax.generate(model, prompts, config=tf_jax.GenerationConfig(max_tokens=TOKENS))
  theirs = llama_cpp_texts(path, prompts)
  pairs = [(prompt, text.text, other)
           for prompt, text, other in zip(prompts, ours, theirs, strict=True) if text.text != other]
  lines = [f'{name}: {len(prompts) - len(pairs)} of {len(prompts)} texts are equal']
  lines += [f'  after {start} tokens, {margin:.4f} nats: {mine!r}, llama.cpp {other!r}'
            for start, margin, mine, other in (first_difference(model, *pair) for pair in pairs)]
  return '\n'.join(lines)


def first_difference(model: LanguageModel, prompt: str, text: str, other: str
                     ) -> tuple[int, float, str, str]:
  """Returns how many tokens are equal, by how much ours is likelier, and the tokens that differ."""
  encode = model.tokenizer.encode
  context, ours, theirs = encode(prompt), encode(text), encode(other)
  same = next((i for i, (mine, one) in enumerate(zip(ours, theirs, strict=False)) if mine != one),
              min(len(ours), len(theirs)))
  ends = [ids[same] if same < len(ids) else min(model.tokenizer.end_ids) for ids in (ours, theirs)]
  requests = [ScoreRequest((), tuple([*context, *ours[:same], end]), (len(context) + same,))
              for end in ends]
  mine, one = (float(found[0]) for found in score(model.for_inference(), requests))
  return same, mine - one, *(model.tokenizer.decode([end]) for end in ends)


def llama_cpp_texts(path: pathlib.Path, prompts: list[str]) -> list[str]:
  """Returns the greedy continuations of llama.cpp."""
  server = llama_cpp(path)
  texts = []
  for prompt in prompts:
    answer = server.handle_completions({'prompt': prompt, 'n_predict': TOKENS, 'temperature': 0.0,
                                        'top_k': 1, 'cache_prompt': False})
    answer = answer if isinstance(answer, dict) else json.loads(answer)
    texts.append(answer['content'] if 'content' in answer else answer['choices'][0]['text'])
  return texts


def llama_cpp(path: os.PathLike[str]) -> Any:
  """Returns a server of llama.cpp in this process that repeats itself: one thread, and a cache in
  float32."""
  try:
    import xllamacpp
  except ImportError:
    raise UserError('the comparison needs: pip install xllamacpp') from None
  params = xllamacpp.CommonParams()
  params.model.path, params.warmup = os.fspath(path), False
  params.n_ctx, params.n_parallel = 512, 1
  params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
  params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
  params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
  return xllamacpp.Server(params)


if __name__ == '__main__':
  sys.exit(cli.guarded(main, resumable=True))
