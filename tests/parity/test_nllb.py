"""NLLB by CTranslate2 says what transformers says, on a small random model of its architecture."""

import pytest
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers

from toolformer_jax.data.asset_sources import convert_nllb
from toolformer_jax.errors import UserError
from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.nllb import CODES, Nllb

ctranslate2 = pytest.importorskip('ctranslate2')

CODE_OF = {'es': 'spa_Latn', 'de': 'deu_Latn'}
SPECIAL = ['<s>', '<pad>', '</s>', '<unk>', *CODE_OF.values(), 'eng_Latn']
TEXTS = [('w1 w2 w3', 'es'), ('w5 w9', 'de'), ('w7', 'es'), ('w30 w2 w2 w4 w5 w6', 'de')]
MAX_TOKENS = 12


@pytest.fixture(scope='module')
def tokenizer():
  words = [*SPECIAL[:4], *(f'▁w{i}' for i in range(40)), *SPECIAL[4:]]
  vocabulary = {word: i for i, word in enumerate(words)}
  made = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token='<unk>'))
  made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
  made.add_special_tokens(SPECIAL)
  return made


@pytest.fixture(scope='module')
def theirs(tokenizer):
  torch.manual_seed(0)
  config = transformers.M2M100Config(
      vocab_size=tokenizer.get_vocab_size(), d_model=32, encoder_layers=2, decoder_layers=2,
      encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
      max_position_embeddings=64, bos_token_id=0, pad_token_id=1, eos_token_id=2,
      decoder_start_token_id=2, forced_eos_token_id=None, init_std=0.3)
  return transformers.M2M100ForConditionalGeneration(config).eval()


@pytest.fixture(scope='module')
def directory(tokenizer, theirs, tmp_path_factory):
  """What `toolformer fetch nllb-600m` makes of a checkpoint of the Hugging Face hub."""
  source, target = tmp_path_factory.mktemp('hf'), tmp_path_factory.mktemp('ct2') / 'nllb'
  transformers.PreTrainedTokenizerFast(
      tokenizer_object=tokenizer, bos_token='<s>', eos_token='</s>', pad_token='<pad>',
      unk_token='<unk>', additional_special_tokens=SPECIAL[4:]).save_pretrained(source)
  theirs.save_pretrained(source)
  convert_nllb(source, target)
  return target


@pytest.fixture
def translated(tokenizer, theirs):
  """Returns a function from a text and the codes of two languages to transformers' translation."""
  def translated(text, source, target):
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    made = theirs.generate(torch.tensor([[tokenizer.token_to_id(source), *ids, 2]]), num_beams=1,
                           do_sample=False, max_new_tokens=MAX_TOKENS,
                           forced_bos_token_id=tokenizer.token_to_id(target))
    return tokenizer.decode(made[0].tolist()).strip()
  return translated


def test_translations_are_those_of_transformers(directory, translated):
  ours = Nllb(str(directory), 'v', beam_size=1, max_tokens=MAX_TOKENS)
  expected = [translated(text, CODE_OF[language], 'eng_Latn') for text, language in TEXTS]
  assert ours.translate_many(*zip(*TEXTS, strict=True)) == expected
  assert len(set(expected)) > 2


def test_translations_from_english_are_those_of_transformers(directory, translated):
  ours, texts = Nllb(str(directory), 'v', beam_size=1, max_tokens=MAX_TOKENS), dict(TEXTS)
  expected = {target: [translated(text, 'eng_Latn', code) for text in texts]
              for target, code in CODE_OF.items()}
  for target, found in expected.items():
    assert ours.translate_many([*texts], ['en'] * len(texts), target) == found
  assert expected['es'] != expected['de']
  with pytest.raises(ToolError, match='no pair: en to xx'):
    ours.check_pair('en', 'xx')


def test_unknown_languages_are_tool_errors(directory):
  ours = Nllb(str(directory), 'v', beam_size=1, max_tokens=MAX_TOKENS)
  unknown, known = ours.translate_many(['w1', 'w1'], ['xx', 'es'])
  assert isinstance(unknown, ToolError) and isinstance(known, str)
  assert CODES.items() >= CODE_OF.items()


def test_a_directory_without_a_model_is_refused(tmp_path):
  with pytest.raises(UserError, match='has no NLLB model for CTranslate2'):
    Nllb(str(tmp_path), 'v')
