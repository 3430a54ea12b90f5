"""The run.json of an annotation run: its settings, those that may change apart, and its folders."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath

from toolformer_jax.annotation.stage_keys import (
  join_configuration,
  split_configuration,
  stage_folders,
)
from toolformer_jax.errors import UserError
from toolformer_jax.runtime.run_dir import write_json


@dataclass(frozen=True)
class RunSettings:
  """The settings of an annotation run.

  Attributes:
    fixed: the configuration that the folder keeps: checkpoint, corpus, and so on.
    current: the settings that may change between two starts of the run: those of the tools, of
      sampling, and of the limits of calls.
    folders: the folder of each stage with these settings, relative to the run's folder.
    versions: of the software.
  """

  fixed: Mapping[str, Any]
  current: Mapping[str, Any]
  folders: Mapping[str, str]
  versions: Mapping[str, str]

  @classmethod
  def of(cls, configuration: Mapping[str, Any], versions: Mapping[str, str]) -> 'RunSettings':
    """Returns the settings of a configuration, see `AnnotationPipeline.configuration`."""
    fixed, current = split_configuration(configuration)
    return cls(fixed, current, stage_folders(join_configuration(fixed, current)), versions)

  @classmethod
  def read(cls, path: epath.Path) -> 'RunSettings | None':
    """Returns the settings of the run in the folder `path`; None if it has no run.json.

    Raises:
      UserError: run.json is broken, or of an earlier version.
    """
    file = path / 'run.json'
    try:
      fields = json.loads(file.read_bytes())
      fixed, current = fields['configuration'], fields['current']
      settings = cls.of(join_configuration(fixed, current), fields['versions'])
      same = settings.folders == fields['folders']
    except FileNotFoundError:
      return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
      raise UserError(f'{path} is not the output folder of an annotation run: its run.json is '
                      'broken, or was made by an earlier version; choose another folder') from error
    if not same:
      raise UserError(f'{file} names other folders of stages than its settings need: it was '
                      'changed, or made by another version; choose another folder')
    return settings

  def write(self, path: epath.Path) -> None:
    """Writes run.json to the folder `path`."""
    write_json(path / 'run.json', {'configuration': self.fixed, 'current': self.current,
                                   'folders': self.folders, 'versions': self.versions})

  @property
  def tools(self) -> Mapping[str, Mapping[str, Any]]:
    """The settings of each tool, by its name."""
    return self.current['tools']
