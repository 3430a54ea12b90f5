"""Downloads models from the Hugging Face hub."""

import pathlib

from toolformer_jax.errors import UserError


def download_model(name: str, weights: bool = True) -> pathlib.Path:
  """Returns the local copy of `hf://org/name[@revision]`, and downloads it if necessary.

  It lies in the cache of the package huggingface_hub, which goes on with broken downloads and
  checks them. Of the formats of weights that a model has, safetensors comes first.

  Raises:
    UserError: it cannot be downloaded.
  """
  import huggingface_hub
  repository, _, revision = name.removeprefix('hf://').partition('@')
  def download(*files: str) -> pathlib.Path:
    return pathlib.Path(huggingface_hub.snapshot_download(
        repository, revision=revision or None,
        allow_patterns=['*.json', '*.jinja', 'merges.txt', *files]))
  try:
    if not weights:
      return download()
    path = download('*.safetensors')
    return path if list(path.glob('*.safetensors')) else download('pytorch_model*.bin')
  except Exception as error:  # network, unknown name, missing permission, ...
    reason = ' '.join(str(error).split())[:300]
    raise UserError(f'cannot download {name}: {type(error).__name__}: {reason}') from error
