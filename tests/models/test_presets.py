"""The presets are the published models."""

import jax
import pytest

from toolformer_jax.checkpoints.pretrained import pretrained_config
from toolformer_jax.errors import UserError
from toolformer_jax.models.decoder import Decoder
from toolformer_jax.models.language_model import abstract_variables
from toolformer_jax.models.presets import CHECKPOINTS, PRESETS, preset

PARAMETERS = {  # as published, or as transformers counts them
    'gemma3_270m': 268_098_176, 'gpt2_124m': 124_439_808, 'gpt2_355m': 354_823_168,
    'gpt2_774m': 774_030_080, 'gpt2_1.5b': 1_557_611_200, 'gptj_6b': 6_050_882_784,
    'qwen3_0.6b': 596_049_920, 'smollm2_135m': 134_515_008, 'smollm2_360m': 361_821_120,
    'smollm2_1.7b': 1_711_376_384}


@pytest.mark.parametrize('name', PRESETS)
def test_models_have_their_published_size(name):
  variables = abstract_variables(Decoder(PRESETS[name]))
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == PARAMETERS[name]


def test_every_model_is_counted_and_has_a_checkpoint():
  assert PRESETS.keys() == PARAMETERS.keys() == CHECKPOINTS.keys()


def test_a_preset_is_what_its_checkpoint_says(smollm2_path):
  found = pretrained_config(str(smollm2_path))
  assert found.norm_eps == pytest.approx(1e-5)  # GGUF has it in float32
  assert found.replace(norm_eps=1e-5) == PRESETS['smollm2_135m']


def test_unknown_names_offer_the_nearest():
  with pytest.raises(UserError, match="unknown model 'gptj': did you mean gptj_6b"):
    preset('gptj')
