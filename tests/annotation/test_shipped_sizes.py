"""Every prompt of the package fits every model of configs/models, with a text and a call.

The tokenizer is SmolLM2's, the one that is always there. GPT-2's has 2.5% more tokens at most in
each of the prompts (330 for 322 in that of WikiSearch), and a fifth fewer in the calculator's (433
for 539), where SmolLM2's splits the digits.
"""

import json
import pathlib

import pytest

from toolformer_jax.annotation.config import ToolConfig
from toolformer_jax.annotation.prompts import PROMPTS
from toolformer_jax.annotation.sample import CallSampler, check_fits
from toolformer_jax.checkpoints.gguf import GgufFile
from toolformer_jax.config.loading import load
from toolformer_jax.data.records import Document
from toolformer_jax.models.presets import CHECKPOINTS, PRESETS
from toolformer_jax.tokenizer import Tokenizer

CONFIGS = pathlib.Path(__file__).parents[2] / 'configs'
SIZES = sorted(path.stem for path in (CONFIGS / 'models').glob('*.gin'))
_MORE_TOKENS = 1.03
# A size for each number of tokens and of positions.
SHAPES = {(config.vocab_size, config.max_positions): size for size, config in PRESETS.items()}
_OPENING_TOKENS = 4  # of ` [WikiSearch`


@pytest.fixture(scope='module')
def smollm2_tokenizer(smollm2_path):
  return GgufFile(smollm2_path).tokenizer()


def test_every_preset_has_a_gin_file():
  assert SIZES == sorted(PRESETS)
  for size in SIZES:
    assert load([CONFIGS / f'models/{size}.gin']).macros['CHECKPOINT'] == CHECKPOINTS[size]


@pytest.mark.parametrize('size', SIZES)
def test_the_gin_file_of_a_size_binds_what_fits_its_positions(size, smollm2_tokenizer):
  config, positions = load([CONFIGS / f'models/{size}.gin']), PRESETS[size].max_positions
  encode = smollm2_tokenizer.encode
  for prompt in PROMPTS.values():
    assert config.tool_config(prompt.tool).prompt == ''
    tokens = sum(len(encode(part)) for part in (
        prompt.text_before_input(config.syntax), prompt.text_before_output()))
    settings = config.annotation
    assert (1 + _MORE_TOKENS * tokens + 2 * settings.max_text_tokens + _OPENING_TOKENS
            + settings.max_call_tokens <= positions)
  assert config.finetune.row_tokens <= positions


@pytest.fixture(scope='module', params=SHAPES.values())
def size_and_model(request, make_model, smollm2_tokenizer, tmp_path_factory):
  """A small random model with the tokens and positions of a size, and SmolLM2's tokenizer."""
  size, folder = PRESETS[request.param], tmp_path_factory.mktemp('tokenizer')
  learned, rows = size.positions == 'learned', max(size.vocab_size, smollm2_tokenizer.vocab_size)
  smollm2_tokenizer.save(folder)
  ids = json.loads((folder / 'tokenizer_ids.json').read_text())
  (folder / 'tokenizer_ids.json').write_text(json.dumps({**ids, 'vocab_size': rows}))
  model = make_model(layers=1, vocab_size=rows, max_positions=size.max_positions,
                     positions=size.positions, rotary_dim=0 if learned else 8)
  return request.param, type(model).from_variables(
      model.config, model.variables, Tokenizer.load(folder), model.mesh)


def test_calls_are_sampled_in_the_longest_text(size_and_model):
  size, small_model = size_and_model
  encode, syntax = small_model.tokenizer.encode, load().syntax
  settings = load([CONFIGS / f'models/{size}.gin']).annotation
  for prompt in PROMPTS.values():
    check_fits(small_model, prompt, settings, syntax)
  text = ' the'
  while len(encode(text + ' the')) <= settings.max_text_tokens:
    text += ' the'
  assert len(encode(text)) == settings.max_text_tokens
  # Each prompt takes half a minute: the longest one has the least space left.
  longest = max(PROMPTS.values(), key=lambda one: len(encode(one.text_before_input(syntax))))
  sampler = CallSampler(model=small_model, prompt=longest, tool_config=ToolConfig(0.0, k=2, m=2),
                        config=settings, syntax=syntax)
  _, counts = sampler([Document('long', text)])
  assert counts['positions'] == 2 and counts['samples'] == 4
