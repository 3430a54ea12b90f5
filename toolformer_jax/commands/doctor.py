"""Shows what works on this machine, and what is missing for what.

Prints the devices, the versions of packages beside the tested ones, the optional features with the
command that installs each, and the caches with their sizes. Nothing is changed. The exit code is 2
if a package that every installation needs is missing or has an untested version.

Examples:
  toolformer doctor
"""

import argparse

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.standard_output import print_result


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Declares the options: there are none."""


def run(args: argparse.Namespace) -> None:
  """Runs the command."""
  from toolformer_jax.data.catalogue import cache_directory
  from toolformer_jax.runtime.doctor import diagnose
  found = diagnose(cache_directory())
  print_result(found.report())
  if found.unfit:
    names = ' '.join(f"'{package.name}{package.tested}'" for package in found.unfit)
    raise UserError(f'{len(found.unfit)} packages have no tested version: pip install {names}')
