"""A process that a tool forks keeps nothing of a run."""

import subprocess
import sys

PARENT = """
import os, sys, time
from etils import epath
from toolformer_jax.runtime.run_dir import LockedFolder
folder = LockedFolder(epath.Path(sys.argv[1]), {'seed': 1}, {})
child = os.fork()
if child == 0:
  os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
  time.sleep(60)
  os._exit(0)
print(child, flush=True)
os.kill(os.getpid(), 9)
"""
AGAIN = """
import sys
from etils import epath
from toolformer_jax.runtime.run_dir import LockedFolder
with LockedFolder(epath.Path(sys.argv[1]), {'seed': 1}, {}):
  print('open')
"""


def test_a_forked_child_does_not_keep_the_folder_of_a_run_that_was_killed(tmp_path):
  killed = subprocess.run([sys.executable, '-c', PARENT, str(tmp_path / 'run')],
                          stdout=subprocess.PIPE, text=True)
  child = int(killed.stdout)
  try:
    again = subprocess.run([sys.executable, '-c', AGAIN, str(tmp_path / 'run')],
                           capture_output=True, text=True, timeout=60)
    assert again.stdout == 'open\n', again.stderr
  finally:
    subprocess.run(['kill', '-9', str(child)], check=True)
