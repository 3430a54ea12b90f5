"""Writes a model in a format of other programs."""

from etils import epath

from toolformer_jax.checkpoints import gguf_writer, huggingface
from toolformer_jax.checkpoints.adapters.save import save_adapter
from toolformer_jax.checkpoints.any_model import AnyModel, as_model
from toolformer_jax.runtime.output_dir import check_is_new


def export_model(model: AnyModel, path: epath.Path, *, adapter_of: str | None, format: str,
                 quantization: str | None) -> None:
  """Writes a model to the folder `path`; see `api.export`.

  Raises:
    UserError: the folder is not empty, or the model cannot be written in this format.
  """
  check_is_new(path)
  gguf_writer.check_format(format, quantization, adapter_of)
  model = as_model(model)
  if adapter_of:
    save_adapter(path, model, adapter_of)
  elif format == 'gguf':
    gguf_writer.save_gguf(path, model, quantization or 'f16')
  else:
    huggingface.save_directory(path, model)
