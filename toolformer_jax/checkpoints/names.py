"""Checks names of checkpoints before anything is loaded; importing it does not load JAX."""

from toolformer_jax.data.catalogue import CATALOGUE
from toolformer_jax.errors import UserError, unknown
from toolformer_jax.runtime.paths import as_path, is_remote

ADAPTER_CONFIG = 'adapter_config.json'  # in a directory of PEFT or AdapterHub


def check_adapter(path: str) -> None:
  """Checks that there is an adapter at `path`, by its files alone.

  Raises:
    UserError: there is none.
  """
  folder = as_path(path)
  if is_remote(folder):
    return
  if not folder.is_dir():
    raise UserError(f'there is no adapter {path}: no such folder')
  if not (folder / ADAPTER_CONFIG).is_file():
    raise UserError(f'{path} is not an adapter: it has no {ADAPTER_CONFIG}. An output folder of '
                    'finetune has the whole model: give it as --checkpoint')


def check_checkpoint(name: str) -> None:
  """Checks that a checkpoint is there, by its name alone: no file is read or downloaded.

  Raises:
    UserError: `name` is neither a file nor a folder with a model, nor a name of `known_models`.
  """
  if name in known_models() or name.startswith('hf://') or is_remote(path := as_path(name)):
    return
  if path.is_dir():
    if not any(path.iterdir()):
      raise UserError(f'{name} is not a checkpoint: the folder is empty')
    if (file := path / 'model.gguf').is_file():
      raise UserError(f'{name} is not a checkpoint, but {file} in it is: give that')
  elif path.suffix == '.gguf':
    if not path.is_file():
      raise UserError(f'there is no file {name}')
  elif path.exists():
    raise UserError(f'{name} is not a checkpoint: give a Hugging Face directory, an output '
                    'folder of finetune, a .gguf file, or a name such as smollm2-135m')
  elif len(path.parts) > 1:
    raise UserError(f'there is no checkpoint {name}: no such folder or file')
  else:
    raise UserError(f'{unknown("model", name, known_models())}; there is no folder {name} either')


def known_models() -> list[str]:
  """Returns the short names of the models that `toolformer fetch` can download."""
  return [asset.name for asset in CATALOGUE.values() if asset.kind == 'model']
