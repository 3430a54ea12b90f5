"""The README.md of an exported model: what it is, how it was trained, and how to use it."""

import json
from typing import Any

from etils import epath

import toolformer_jax
from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.markdown import markdown_table
from toolformer_jax.runtime.paths import as_path

_HEADER = """---
library_name: transformers
pipeline_tag: text-generation
tags:
- toolformer
- tool-use
---
"""
_USE = """## How to use it

    from transformers import pipeline
    generate = pipeline('text-generation', model='FOLDER_OR_NAME')
    print(generate('Ann has 24 rows of 15 roses. That makes', max_new_tokens=32)[0])

The tokenizer begins every text with {start}, as in training. A model that has learned it writes API
calls such as ` [Calculator(24 * 15) ->` into its texts. transformers does not execute them, so that
the model makes up their results. With `toolformer_jax` the tools are called while the text is
written:

    toolformer generate --checkpoint FOLDER --tools calculator,calendar --prompt 'Today is'
"""
_CITATION = """## Citation

    @inproceedings{schick2023toolformer,
      title     = {Toolformer: Language Models Can Teach Themselves to Use Tools},
      author    = {Timo Schick and Jane Dwivedi-Yu and Roberto Dess{\\`i} and Roberta Raileanu and
                   Maria Lomeli and Luke Zettlemoyer and Nicola Cancedda and Thomas Scialom},
      booktitle = {Advances in Neural Information Processing Systems},
      year      = {2023}
    }
"""


_USE_PACKED = """## How to use it

Only `toolformer_jax` reads this folder, because its weights are packed integers. A folder for other
programs is written by `toolformer export --checkpoint FOLDER --output_dir D`.

    toolformer generate --checkpoint FOLDER --tools calculator,calendar --prompt 'Today is'
"""

_DECOMPRESS = """The weight files are compressed. `toolformer_jax` reads them as they are. For other
programs, restore them first: `zstd -d --rm *.zst` in this folder.
"""


def model_card(model: LanguageModel, *, is_packed: bool = False, is_compressed: bool = False
               ) -> str:
  """Returns the model card of `model` in Markdown.

  How the model was trained is read from the fine-tuning run that it was loaded from.

  Args:
    model: the model.
    is_packed: whether its weights are packed integers, which transformers does not read.
    is_compressed: whether its weight files are compressed by Zstandard.
  """
  config = model.config
  about = (f'# Toolformer, {config.layers} layers of {config.embed_dim}\n\n'
           f'A language model, exported by toolformer_jax {toolformer_jax.__version__}, which '
           'trains models to call tools (Toolformer, Schick et al. 2023). It has '
           f'{config.max_positions:,} positions and {config.vocab_size:,} tokens; its weights are '
           f'{"integers of 8 or 4 bits" if is_packed else "float32"}.')
  start = model.tokenizer.start_id
  named = 'no start token' if start is None else f'`{model.tokenizer.token_of(start)}`'
  header, use = _HEADER, _USE.format(start=named)
  if is_packed:
    header, use = _HEADER.replace('transformers', 'toolformer_jax'), _USE_PACKED
  if is_compressed:
    use += f'\n{_DECOMPRESS}'
  return '\n\n'.join(part.strip() for part in (
      header, about, _training(as_path(model.source)), use, _CITATION)) + '\n'


def _training(run: epath.Path) -> str:
  """Returns how the model of a fine-tuning run was trained."""
  try:
    report = (run / 'report.md').read_text('utf-8')
    settings = json.loads((run / 'run.json').read_text('utf-8'))['configuration']['finetune']
  except (OSError, ValueError, KeyError, TypeError):
    return ('## How it was trained\n\nThe checkpoint that was exported is not the output of '
            '`toolformer finetune`, so that this is not known here.')
  rows: list[list[Any]] = [['setting', 'value'], *map(list, settings.items())]
  body = report.removeprefix('# Fine-tuning').strip().replace('\n## ', '\n### ')
  return (f'## How it was trained\n\n{body}\n\n### Settings\n\n'
          f'{markdown_table([[str(cell) for cell in row] for row in rows])}')
