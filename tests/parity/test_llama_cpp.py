"""What we write as GGUF is what llama.cpp runs: the same greedy texts, from texts, as ours.

llama.cpp rounds what it multiplies with weights. To float16 for those in f16: that is done here
too, so that our model prefers the same token at every step. For those in q8_0 it computes with 8
bits, in a way that is not copied here: most of its tokens are our likeliest, not all.
Needs the package xllamacpp, which is not installed with the others: llama.cpp in a wheel.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from toolformer_jax.checkpoints.gguf_writer import save_gguf
from toolformer_jax.checkpoints.pretrained import load_pretrained
from toolformer_jax.models.layers import Einsum
from toolformer_jax.runtime.paths import as_path
from toolformer_jax.sharding import make_mesh

from .reference import texts

pytestmark = pytest.mark.long
PROMPT_CHARACTERS, TOKENS, ROW = 100, 32, 128


@pytest.fixture
def llama_cpp(experiment):
  """Returns a function from a file and prompts to greedy continuations: ids, log-probabilities."""
  pytest.importorskip('xllamacpp', reason='the package xllamacpp is not installed')
  script = experiment('llama_cpp_texts')
  def generate(path, prompts):
    server = script.llama_cpp(path)
    request = {'n_predict': TOKENS, 'temperature': 0.0, 'logprobs': 1, 'cache_prompt': False}
    answers = [server.handle_completions({**request, 'prompt': prompt}) for prompt in prompts]
    return [[(token['id'], token['logprob']) for token in
             answer['choices'][0]['logprobs']['content']] for answer in answers]
  return generate


def to_half(x):
  return x.astype(jnp.float16).astype(x.dtype)


def make_logprobs(model, rounded):
  """Returns a function from ids to log-probabilities [T, V], with rounded inputs of products."""
  def watch(call, args, kwargs, context):
    if isinstance(context.module, Einsum):
      return call(rounded(args[0]), *args[1:], **kwargs)
    found = call(*args, **kwargs)
    return rounded(found) if context.module.name == 'final_norm' else found
  @jax.jit
  def compute(variables, ids_BT):
    with nn.intercept_methods(watch):
      return jax.nn.log_softmax(model.decoder.apply(variables, ids_BT)[0][0])
  def logprobs(ids):
    return np.asarray(compute(model.variables, np.array([[*ids, *[0] * (ROW - len(ids))]])))
  return logprobs


@pytest.mark.parametrize(('quantization', 'rounded', 'same', 'mean_difference'), [
  ('f16', to_half, 1.0, 0.005), ('q8_0', lambda x: x, 0.95, 0.1)])
def test_greedy_texts_are_the_same(llama_cpp, smollm2_path, tmp_path, quantization, rounded, same,
                                   mean_difference):
  mesh = make_mesh(devices=jax.devices()[:1])
  save_gguf(as_path(tmp_path), load_pretrained(str(smollm2_path), mesh=mesh), quantization)
  model = load_pretrained(str(tmp_path / 'model.gguf'), mesh=mesh)
  logprobs = make_logprobs(model, rounded)
  prompts = [document.text[:PROMPT_CHARACTERS] for document in texts()]
  likeliest, differences = [], []
  for prompt, answer in zip(prompts, llama_cpp(tmp_path / 'model.gguf', prompts), strict=True):
    start = [model.tokenizer.start_id, *model.tokenizer.encode(prompt)]
    ids, theirs = zip(*answer, strict=True)
    ours_TV = logprobs([*start, *ids])[len(start) - 1:][:len(ids)]
    chosen = ours_TV[range(len(ids)), ids]
    differences += np.abs(chosen - theirs).tolist()
    likeliest += (ours_TV.argmax(-1) == ids).tolist()
  assert len(likeliest) >= 500 and np.mean(likeliest) >= same
  assert np.mean(differences) <= mean_difference
