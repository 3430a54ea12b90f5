"""Downloads models from the Hugging Face hub."""

import pathlib

from toolformer_jax.errors import UserError


def download_model(name: str, weights: bool = True, download: bool = True) -> pathlib.Path:
  """Returns the local copy of `hf://org/name[@revision]`, and downloads it if necessary.

  It lies in the cache of the package huggingface_hub, which goes on with broken downloads and
  checks them. Of the formats of weights that a model has, safetensors comes first.

  Args:
    name: of the model.
    weights: the weights too, beside the configuration and the tokenizer.
    download: download what is not in the cache.

  Raises:
    UserError: it cannot be downloaded, or it is not in the cache and `download` is False.
  """
  import huggingface_hub
  repository, _, revision = name.removeprefix('hf://').partition('@')
  def snapshot(*files: str) -> pathlib.Path:
    return pathlib.Path(huggingface_hub.snapshot_download(
        repository, revision=revision or None, local_files_only=not download,
        allow_patterns=['*.json', '*.jinja', 'merges.txt', *files]))
  try:
    if not weights:
      return snapshot()
    path = snapshot('*.safetensors')
    return path if list(path.glob('*.safetensors')) else snapshot('pytorch_model*.bin')
  except Exception as error:  # network, unknown name, missing permission, ...
    if not download:
      raise UserError(f'{name} is not on this machine') from error
    reason = ' '.join(str(error).split())[:300]
    raise UserError(f'cannot download {name}: {type(error).__name__}: {reason}') from error
