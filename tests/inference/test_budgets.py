"""How many programs are compiled, and what is said where the memory is too small."""

import dataclasses

import jax
import numpy as np
import pytest

from toolformer_jax.errors import UserError
from toolformer_jax.inference import branch_sampling, shared_prefix
from toolformer_jax.inference.config import EngineConfig, GenerationConfig
from toolformer_jax.inference.generation import generate
from toolformer_jax.inference.scoring import ScoreRequest, score
from toolformer_jax.runtime.compile_counter import CompileCounter
from toolformer_jax.runtime.oom import explain_out_of_memory


def programs(work):
  """Returns how many programs `work` makes ready."""
  with CompileCounter() as counter:
    work()
  return counter.programs


def ids(rng, size):
  return rng.integers(0, 250, size).tolist()


def requests(rng, count):
  made = []
  for _ in range(count):
    text = tuple(ids(rng, int(rng.integers(1, 100))))
    size = int(rng.integers(1, len(text) + 1))
    made.append(ScoreRequest(tuple(ids(rng, int(rng.integers(0, 20)))), text,
                             tuple(sorted(rng.permutation(len(text))[:size].tolist()))))
  return made


def test_scoring_again_compiles_nothing(make_model):
  model, rng = make_model(layers=1), np.random.default_rng(0)
  wanted = requests(rng, 12)
  def other(request):
    return ScoreRequest(tuple(ids(rng, len(request.prefix_ids))),
                        tuple(ids(rng, len(request.token_ids))), request.target_positions)
  assert programs(lambda: score(model, wanted)) > 0
  assert programs(lambda: score(model, [other(request) for request in wanted])) == 0


def test_scoring_compiles_a_program_for_a_bucket_at_most(make_model):
  model = make_model(layers=1, embed_dim=16, mlp_dim=16)
  rng = np.random.default_rng(0)
  counts = [programs(lambda: score(model, requests(rng, count), scoring_tokens=512))  # noqa: B023
            for count in [*range(1, 30), 60]]
  # Rows of 256 tokens, 1 or 2 of them, with 16 to 256 scored places.
  assert 1 < sum(counts) <= 2 * 5


def test_rows_are_counted_in_powers_of_two(make_model):
  model, rng = make_model(layers=1, embed_dim=16, mlp_dim=16), np.random.default_rng(0)
  def fill(rows):
    score(model, [ScoreRequest((), tuple(ids(rng, 200)), (199,)) for _ in range(rows)])
  # Four at a time.
  assert programs(lambda: fill(4)) > 0
  assert programs(lambda: [fill(rows) for rows in (3, 7, 8)]) == 0


def sample(model, rng, seeds, branches):
  prompt = shared_prefix.prefill_prompt(model, ids(rng, 21))
  documents = [ids(rng, size) for size in rng.integers(40, 64, 3)]
  computed = shared_prefix.prefill_documents(
      model, prompt, documents, 5, [range(1, len(document)) for document in documents])
  how = branch_sampling.BranchConfig(
      opening=(7, 11), first_allowed_V=np.ones(model.config.vocab_size, bool), max_tokens=8,
      temperature=1.0, top_p=1.0, is_finished=lambda text: len(text) >= 5)
  return branch_sampling.sample_branches(
      model, computed, [branch_sampling.Branch(i % 3, 1 + i % 5, seed)
                        for i, seed in zip(range(branches), seeds, strict=False)], how,
      sampling_rows=16)  # the fewest, so that the batch does not shrink at times of its own


@pytest.mark.parametrize('branches', [1, 150])
def test_sampling_again_compiles_nothing(make_model, branches):
  model, rng = make_model(layers=1, max_positions=512), np.random.default_rng(0)
  def run(start):
    sample(model, rng, range(start, start + 1000), branches)
  assert programs(lambda: run(0)) > 0
  assert programs(lambda: [run(start) for start in (1000, 2000)]) == 0


def test_generating_again_compiles_nothing(make_model):
  model, rng = make_model(layers=1, max_positions=512), np.random.default_rng(0)
  how = GenerationConfig(max_tokens=16)
  # Four prompts are packed into a row of 192 tokens; the last text is alone.
  def run(sizes, config):
    generate(model, [ids(rng, size) for size in sizes], config=config,
             engine_config=EngineConfig(slots=4))
  assert programs(lambda: run((10, 20, 40, 70, 30), how)) > 0
  sampled = dataclasses.replace(how, temperature=1.0, top_p=0.9, seed=5, max_tokens=20, stop=('a',))
  assert programs(lambda: run((60, 3, 70, 50, 5), how)) == 0
  assert programs(lambda: run((60, 3, 70, 50, 5, 1, 9, 17), sampled)) == 0
  # Rows of 256 tokens, four of them and then one.
  assert programs(lambda: run((200, 190, 180, 210, 220), how)) > 0
  assert programs(lambda: run((170, 220, 150, 190, 180), how)) == 0


def test_memory_names_the_rows_that_are_sampled(make_model):
  model = make_model(layers=1)
  computed = shared_prefix.prefill_documents(
      model, shared_prefix.prefill_prompt(model, [1, 2]), [[3, 4]], 5, [range(1, 2)])
  endless = branch_sampling.BranchConfig(
      opening=(7,), first_allowed_V=np.ones(model.config.vocab_size, bool), max_tokens=10**13,
      temperature=0.0, top_p=1.0, is_finished=bool)
  with pytest.raises(UserError, match='out of memory on the device; lower sampling_rows'):
    branch_sampling.sample_branches(model, computed, [branch_sampling.Branch(0, 1, 0)], endless)


def test_memory_names_the_slots_of_generation(make_model):
  model = make_model(layers=1)
  # Nothing but the cache's size is asked of this configuration before there is no memory for it.
  huge = model.decoder.clone(config=model.config.replace(head_dim=2**42))
  with pytest.raises(UserError, match='lower EngineConfig.slots or'):
    generate(dataclasses.replace(model, decoder=huge), [[1, 2]])


def test_memory_names_the_tokens_that_are_scored(make_model):
  size = 2**22  # its attention would take 2**44 numbers
  request = ScoreRequest((), (1,) * size, (size - 1,))
  with pytest.raises(UserError, match='lower scoring_tokens, or'):
    score(make_model(layers=1), [request])


def test_memory_names_the_length_of_documents(make_model):
  model = make_model(layers=1)
  prompt = shared_prefix.prefill_prompt(model, [1, 2])
  with pytest.raises(UserError, match=r'shorten the documents \(max_text_tokens\)'):
    shared_prefix.prefill_documents(model, prompt, [[1] * 2**22], 5, [range(1, 2)])


def test_other_failures_of_a_device_stay_what_they_are():
  def fail():
    raise ValueError('another failure')
  with pytest.raises(jax.errors.JaxRuntimeError, match='another'), explain_out_of_memory(''):
    jax.jit(lambda: jax.pure_callback(fail, jax.ShapeDtypeStruct((), np.int32)))()
