"""The environment of libtpu, the runtime and compiler for TPUs."""

import glob
import os

# Read by libtpu when it is loaded. Without them it looks for a TPU machine, prints warnings, and
# lets only one process compile at a time.
_ENVIRONMENT = {
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1', 'TPU_SKIP_MDS_QUERY': '1',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-8', 'TPU_WORKER_HOSTNAMES': 'localhost'}


def set_environment() -> None:
  """Sets what libtpu reads when JAX starts, unless this machine has a TPU."""
  if not glob.glob('/dev/accel*') and not glob.glob('/dev/vfio/[0-9]*'):
    for name, value in _ENVIRONMENT.items():
      os.environ.setdefault(name, value)
