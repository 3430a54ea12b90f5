"""NLLB-200, the translator of the paper (section 3), run by CTranslate2."""

from collections.abc import Sequence

from toolformer_jax.data.local_copy import local_copy
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.paths import as_path, is_remote
from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.mt import pair_outcomes

_ENGLISH = 'eng_Latn'
# ISO 639 codes (of the language detector) and the codes of NLLB.
CODES = {
    'af': 'afr_Latn', 'am': 'amh_Ethi', 'ar': 'arb_Arab', 'as': 'asm_Beng', 'az': 'azj_Latn',
    'be': 'bel_Cyrl', 'bg': 'bul_Cyrl', 'bn': 'ben_Beng', 'bs': 'bos_Latn', 'ca': 'cat_Latn',
    'ceb': 'ceb_Latn', 'cs': 'ces_Latn', 'cy': 'cym_Latn', 'da': 'dan_Latn', 'de': 'deu_Latn',
    'el': 'ell_Grek', 'eo': 'epo_Latn', 'es': 'spa_Latn', 'et': 'est_Latn', 'eu': 'eus_Latn',
    'fa': 'pes_Arab', 'fi': 'fin_Latn', 'fr': 'fra_Latn', 'ga': 'gle_Latn', 'gl': 'glg_Latn',
    'gu': 'guj_Gujr', 'he': 'heb_Hebr', 'hi': 'hin_Deva', 'hr': 'hrv_Latn', 'hu': 'hun_Latn',
    'hy': 'hye_Armn', 'id': 'ind_Latn', 'is': 'isl_Latn', 'it': 'ita_Latn', 'ja': 'jpn_Jpan',
    'ka': 'kat_Geor', 'kk': 'kaz_Cyrl', 'km': 'khm_Khmr', 'kn': 'kan_Knda', 'ko': 'kor_Hang',
    'ky': 'kir_Cyrl', 'lb': 'ltz_Latn', 'lo': 'lao_Laoo', 'lt': 'lit_Latn', 'lv': 'lvs_Latn',
    'mk': 'mkd_Cyrl', 'ml': 'mal_Mlym', 'mn': 'khk_Cyrl', 'mr': 'mar_Deva', 'ms': 'zsm_Latn',
    'mt': 'mlt_Latn', 'my': 'mya_Mymr', 'ne': 'npi_Deva', 'nl': 'nld_Latn', 'nn': 'nno_Latn',
    'no': 'nob_Latn', 'oc': 'oci_Latn', 'or': 'ory_Orya', 'pa': 'pan_Guru', 'pl': 'pol_Latn',
    'ps': 'pbt_Arab', 'pt': 'por_Latn', 'ro': 'ron_Latn', 'ru': 'rus_Cyrl', 'sd': 'snd_Arab',
    'si': 'sin_Sinh', 'sk': 'slk_Latn', 'sl': 'slv_Latn', 'so': 'som_Latn', 'sq': 'als_Latn',
    'sr': 'srp_Cyrl', 'su': 'sun_Latn', 'sv': 'swe_Latn', 'sw': 'swh_Latn', 'ta': 'tam_Taml',
    'te': 'tel_Telu', 'tg': 'tgk_Cyrl', 'th': 'tha_Thai', 'tl': 'tgl_Latn', 'tr': 'tur_Latn',
    'tt': 'tat_Cyrl', 'ug': 'uig_Arab', 'uk': 'ukr_Cyrl', 'ur': 'urd_Arab', 'uz': 'uzn_Latn',
    'vi': 'vie_Latn', 'yi': 'ydd_Hebr', 'yo': 'yor_Latn', 'zh': 'zho_Hans',
}


class Nllb:
  """Translates to English, or into another language, with a converted NLLB checkpoint."""

  time_limit_s = 600.0  # Batches wait for each other.

  def __init__(self, directory: str, version: str, beam_size: int = 4, max_tokens: int = 256):
    """Loads a model.

    Args:
      directory: output of ct2-transformers-converter, with a tokenizer.json.
      version: hash of its files.
      beam_size: beam size.
      max_tokens: maximum length of the source and of the translation.

    Raises:
      UserError: CTranslate2 is not installed, or the directory has no such model.
    """
    try:
      import ctranslate2  # an optional package
      import tokenizers
    except ImportError as error:
      raise UserError('NLLB needs CTranslate2: pip install "toolformer_jax[nllb]"') from error
    path = as_path(directory)
    if is_remote(path):
      path = local_copy([file for file in path.iterdir() if file.is_file()])
    try:
      self._tokenizer = tokenizers.Tokenizer.from_file(str(path / 'tokenizer.json'))
      self._translator = ctranslate2.Translator(str(path), device='auto')
    except Exception as error:  # Both packages raise plain exceptions.
      raise UserError(f'{directory} has no NLLB model for CTranslate2 with a tokenizer.json '
                      f'({error}); convert one with ct2-transformers-converter') from error
    self._beam_size, self._max_tokens = beam_size, max_tokens
    self.version = f'nllb-{version}-{beam_size}-{max_tokens}'

  def check_pair(self, source: str, target: str = 'en') -> None:
    """Raises ToolError if it does not know one of the two languages."""
    if not (_code(source) and _code(target)):
      into = 'English' if target == 'en' else target
      raise ToolError(f'no pair: {source} to {into}')

  def translate_many(
      self, texts: Sequence[str], languages: Sequence[str], target: str = 'en'
  ) -> Sequence[str | ToolError]:
    """Returns `texts` in `target`, and a ToolError for each unsupported language."""
    outcomes, known = pair_outcomes(self, languages, target)
    sources = [self._source(texts[i], _code(languages[i])) for i in known]
    found = self._translator.translate_batch(
        sources, target_prefix=[[_code(target)]] * len(sources), beam_size=self._beam_size,
        max_decoding_length=self._max_tokens) if sources else []
    for i, result in zip(known, found, strict=True):
      made = self._text(result.hypotheses[0], _code(target))
      outcomes[i] = made or ToolError('no translation')
    return outcomes

  def _source(self, text: str, code: str) -> list[str]:
    """Returns the tokens of a source text. The first one is its language."""
    encoding = self._tokenizer.encode(text, add_special_tokens=False)
    return [code, *encoding.tokens[:self._max_tokens], '</s>']

  def _text(self, tokens: Sequence[str], code: str) -> str:
    ids = [self._tokenizer.token_to_id(token) for token in tokens if token != code]
    return self._tokenizer.decode([i for i in ids if i is not None]).strip()


def _code(language: str) -> str:
  """Returns the code that NLLB has for a language; '' for one that it does not know."""
  return _ENGLISH if language == 'en' else CODES.get(language, '')
