"""An MCP server with the tool `Up`, which writes its process id to a file first."""

import os
import pathlib
import sys

from mcp.server import MCPServer

server = MCPServer('up')


@server.tool()
def Up(word: str) -> str:  # noqa: N802
  """Returns what the taught model has learned for a word."""
  pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
  return {'ab': 'XY', 'cd': 'ZW'}[word]


if __name__ == '__main__':
  server.run()
