"""The server of a tool that dies is started again; requests notice nothing."""

import os
import pathlib
import shlex
import signal
import sys

from toolformer_jax.tools.mcp import mcp_tools

SCRIPT = pathlib.Path(__file__).with_name('mcp_up.py')


def test_a_tool_server_that_dies_is_started_again(serve, tmp_path):
  pid = tmp_path / 'pid'
  tool, = mcp_tools(shlex.join([sys.executable, str(SCRIPT), str(pid)]))
  try:
    with serve(tool) as server:
      def ask(word):
        answer = server.post('completions', prompt=f'{word} is').json()['choices'][0]
        return answer['text'], answer['toolformer_calls'][0]['error']
      assert ask('ab') == (' [Up(ab) -> XY] XY.', None)
      first = int(pid.read_text())
      os.kill(first, signal.SIGKILL)
      assert ask('cd') == (' [Up(cd) -> ZW] ZW.', None)
      assert int(pid.read_text()) != first
  finally:
    tool.close()
