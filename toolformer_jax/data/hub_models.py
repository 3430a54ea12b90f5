"""Downloads models from the Hugging Face hub."""

import pathlib

from toolformer_jax.errors import NotLocalError, UserError

_SAFETENSORS = '*.safetensors', '*.safetensors.zst'


def download_model(name: str, *, weights: bool = True, local_files_only: bool = False
                   ) -> pathlib.Path:
  """Returns the local copy of `hf://org/name[@revision]`, and downloads it if necessary.

  It lies in the cache of the package huggingface_hub, which goes on with broken downloads and
  checks them. Of the formats of weights that a model has, safetensors comes first.

  Args:
    name: of the model.
    weights: the weights too, beside the configuration and the tokenizer.
    local_files_only: download nothing, as in huggingface_hub.

  Raises:
    NotLocalError: it is not in the cache, and `local_files_only` is set.
    UserError: it cannot be downloaded.
  """
  import huggingface_hub
  repository, _, revision = name.removeprefix('hf://').partition('@')
  def snapshot(*files: str) -> pathlib.Path:
    return pathlib.Path(huggingface_hub.snapshot_download(
        repository, revision=revision or None, local_files_only=local_files_only,
        allow_patterns=['*.json', '*.jinja', 'merges.txt', *files]))
  try:
    if not weights:
      return snapshot()
    path = snapshot(*_SAFETENSORS)
    found = any(any(path.glob(pattern)) for pattern in _SAFETENSORS)
    return path if found else snapshot('pytorch_model*.bin')
  except Exception as error:  # network, unknown name, missing permission, ...
    if local_files_only:
      raise NotLocalError(f'{name} is not on this machine') from error
    reason = ' '.join(str(error).split())[:300]
    raise UserError(f'cannot download {name}: {type(error).__name__}: {reason}') from error
