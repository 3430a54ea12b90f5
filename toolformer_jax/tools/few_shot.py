"""Translation by a language model with a few-shot prompt."""

from collections.abc import Sequence

from toolformer_jax.tools.base import Complete, ToolError
from toolformer_jax.tools.mt import pair_outcomes

# Languages that small models may know, as the prompt names them.
LANGUAGES = {
    'ar': 'Arabic', 'ca': 'Catalan', 'de': 'German', 'es': 'Spanish', 'fr': 'French',
    'hi': 'Hindi', 'it': 'Italian', 'ja': 'Japanese', 'ko': 'Korean', 'nl': 'Dutch',
    'pl': 'Polish', 'pt': 'Portuguese', 'ro': 'Romanian', 'ru': 'Russian', 'sv': 'Swedish',
    'tr': 'Turkish', 'vi': 'Vietnamese', 'zh': 'Chinese',
}
_EXAMPLES = (
    ('Spanish', 'El tren sale a las ocho.', 'The train leaves at eight.'),
    ('German', 'Wir haben kein Brot mehr.', 'We have no bread left.'),
    ('French', 'une vieille maison', 'an old house'),
)


class FewShotTranslator:
  """Translates to English, or from it, by continuing a prompt."""

  time_limit_s = 600.0  # includes compilation and waiting for other calls

  def __init__(self, complete: Complete, version: str):
    """Creates a translator; `version` is that of the model behind `complete`."""
    self._complete = complete
    self.version = f'few-shot-{version}'

  def check_pair(self, source: str, target: str = 'en') -> None:
    """Raises ToolError unless one language is English, and the other one is in LANGUAGES."""
    if not (target == 'en' and source in LANGUAGES or source == 'en' and target in LANGUAGES):
      raise ToolError(f'no pair: {source} to {"English" if target == "en" else target}')

  def translate_many(
      self, texts: Sequence[str], languages: Sequence[str], target: str = 'en'
  ) -> Sequence[str | ToolError]:
    """Returns `texts` in `target`, and a ToolError for each language that it does not know."""
    outcomes, known = pair_outcomes(self, languages, target)
    prompts = [translation_prompt(texts[i], LANGUAGES[languages[i]]) if target == 'en'
               else prompt_from_english(texts[i], LANGUAGES[target]) for i in known]
    for i, completion in zip(known, self._complete(prompts) if prompts else [], strict=True):
      outcomes[i] = completion.strip() or ToolError('no translation')
    return outcomes


def translation_prompt(text: str, language: str) -> str:
  """Returns a prompt whose continuation is the English translation of `text`."""
  shown = [f'{name}: {source}\nEnglish: {target}\n\n' for name, source, target in _EXAMPLES]
  return f'{"".join(shown)}{language}: {" ".join(text.split())}\nEnglish:'


def prompt_from_english(text: str, language: str) -> str:
  """Returns a prompt whose continuation is the translation of an English text into `language`."""
  shown = [f'English: {english}\n{name}: {other}\n\n' for name, other, english in _EXAMPLES]
  return f'{"".join(shown)}English: {" ".join(text.split())}\n{language}:'
