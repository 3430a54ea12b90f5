"""Translation by a language model with a few-shot prompt."""

from collections.abc import Sequence

from toolformer_jax.tools.base import Complete, ToolError

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
  """Translates to English by continuing a prompt."""

  time_limit_s = 600.0  # includes compilation and waiting for other calls

  def __init__(self, complete: Complete, version: str):
    """Creates a translator; `version` is that of the model behind `complete`."""
    self._complete = complete
    self.version = f'few-shot-{version}'

  def translate_many(
      self, texts: Sequence[str], languages: Sequence[str]
  ) -> Sequence[str | ToolError]:
    """Returns `texts` in English, and a ToolError for each language that is not in LANGUAGES."""
    known = [i for i, language in enumerate(languages) if language in LANGUAGES]
    prompts = [translation_prompt(texts[i], LANGUAGES[languages[i]]) for i in known]
    outcomes: list[str | ToolError] = [
        ToolError(f'no pair: {language} to English') for language in languages]
    for i, completion in zip(known, self._complete(prompts) if prompts else [], strict=True):
      outcomes[i] = completion.strip() or ToolError('no translation')
    return outcomes


def translation_prompt(text: str, language: str) -> str:
  """Returns a prompt whose continuation is the English translation of `text`."""
  shown = [f'{name}: {source}\nEnglish: {target}\n\n' for name, source, target in _EXAMPLES]
  return f'{"".join(shown)}{language}: {" ".join(text.split())}\nEnglish:'
