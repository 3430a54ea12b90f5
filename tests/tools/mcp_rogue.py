"""An MCP server that breaks the protocol, as none does that is written with a library.

  python mcp_rogue.py MODE [OPERAND]    over its standard input and output
  python mcp_rogue.py http PORT         by HTTP, with sessions

Each of its tools, which all take one text, is another way of doing wrong. The mode says what is
wrong from the start; `tame` is nothing. It speaks the protocol as servers did before 2026.
"""

import contextlib
import gzip
import http.server
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

MODE, *OPERANDS = sys.argv[1:]
TOOLS = ['echo', 'mirror', 'environment', 'stray', 'flood', 'news', 'pings', 'bytes', 'long',
         'chatter', 'hang', 'stubborn', 'spawn', 'die', 'shape', 'error', 'invalid', 'pid', 'bomb',
         'cut', 'status', 'forget', 'announce_and_hang']


def listed(name, description='does wrong'):
  schema = {'type': 'object', 'properties': {'text': {'type': 'string'}}, 'required': ['text']}
  return {'name': name, 'description': description, 'inputSchema': schema}


def starts():
  """How often it has started, as far as the file OPERAND tells."""
  path = pathlib.Path(OPERANDS[0])
  count = len(path.read_text()) if path.exists() else 0
  path.write_text('.' * (count + 1))
  return count


STARTS = starts() if MODE == 'moody' else 0


def page(cursor):
  match MODE:
    case 'none':
      return {'tools': []}
    case 'twins':
      return {'tools': [listed('get-it'), listed('get.it')]}
    case 'pages':
      number = int(cursor or 0)
      more = {'nextCursor': str(number + 1)} if number < 4 else {}
      return {'tools': [listed(f'tool{number}')], **more}
    case 'endless':
      return {'tools': [listed('echo')], 'nextCursor': 'on'}
    case 'says':
      return {'tools': [listed('echo', OPERANDS[0]), listed('pid')]}
    case 'moody':
      return {'tools': [listed(name, f'start {STARTS}') for name in TOOLS if not STARTS or
                        name != 'pid']}
  return {'tools': [listed(name) for name in TOOLS]}


def respond(message):
  """What is sensible to answer."""
  parameters = message.get('params', {})
  match message['method']:
    case 'initialize':
      result = {'protocolVersion': parameters['protocolVersion'], 'capabilities': {'tools': {}},
                'serverInfo': {'name': 'rogue', 'version': '0'}}
    case 'tools/list':
      result = page(parameters.get('cursor'))
    case 'tools/call':
      result = call(parameters['name'], parameters['arguments'])
    case _:
      return {'jsonrpc': '2.0', 'id': message['id'],
              'error': {'code': -32601, 'message': 'no such method'}}
  key = 'error' if 'code' in result else 'result'
  return {'jsonrpc': '2.0', 'id': message['id'], key: result}


def call(name, arguments):
  text = arguments.get('text', '')
  match name:
    case 'mirror':
      text = json.dumps(arguments)
    case 'environment':
      text = ' '.join(os.environ)
    case 'hang':
      time.sleep(1000)
    case 'announce_and_hang':
      path = pathlib.Path(text)
      path.with_suffix('.part').write_text(str(os.getpid()))
      path.with_suffix('.part').rename(path)
      time.sleep(1000)
    case 'stubborn':
      signal.signal(signal.SIGTERM, signal.SIG_IGN)
      time.sleep(1000)
    case 'die':
      print('out of \x1b[31mcheese', file=sys.stderr)
      os._exit(3)
    case 'chatter':
      for _ in range(50):
        sys.stderr.write('noise ' * 20_000 + '\n')
    case 'spawn':
      text = str(subprocess.Popen(['sleep', '1000'], stdout=sys.stderr).pid)
    case 'pid':
      text = str(os.getpid())
    case 'error':
      return {'code': -32603, 'message': 'no cheese today'}
    case 'invalid':
      return {'code': -32602, 'message': 'cheese is wanted'}
    case 'shape':
      return {'content': 'no list'}
  return {'content': [{'type': 'text', 'text': text}]}


def serve_pipes():
  for line in sys.stdin:
    message = json.loads(line)
    if 'id' not in message or MODE == 'mute':
      continue
    write(message.get('params', {}).get('name'), json.dumps(respond(message)).encode())


def write(tool, answer):
  out = sys.stdout.buffer
  match tool:
    case 'stray':
      out.write(b'Starting up...\n\n{"jsonrpc": "1.0"}\n[1, 2]\n')
    case 'flood':
      pour(b'no message')
    case 'news':
      pour(b'{"jsonrpc": "2.0", "method": "notifications/message", '
           b'"params": {"level": "info", "data": "nothing new"}}')
    case 'pings':
      pour(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}')
    case 'bytes':
      answer = answer.replace(b'"text": "', b'"text": "\xff\xfe')
    case 'long':
      answer = answer.replace(b'"text": "', b'"text": "' + b'x' * 2**26)
  out.write(answer + b'\n')
  out.flush()


def pour(line):
  while True:
    sys.stdout.buffer.write((line + b'\n') * 1000)


class Handler(http.server.BaseHTTPRequestHandler):

  protocol_version = 'HTTP/1.1'
  sessions = set()

  def do_POST(self):  # noqa: N802, the name is the method's
    message = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    session = self.headers.get('Mcp-Session-Id')
    if message['method'] == 'initialize':
      session = str(time.monotonic_ns())
      self.sessions.add(session)
    elif message['method'] != 'server/discover' and session not in self.sessions:
      return self.send(404, b'')
    if 'id' not in message:
      return self.send(202, b'')
    self.send_answer(message, session)

  def send_answer(self, message, session):
    tool = message.get('params', {}).get('name')
    body, headers = json.dumps(respond(message)).encode(), {'Mcp-Session-Id': session}
    match tool:
      case 'status':
        return self.send(503, b'')
      case 'long':
        body = body.replace(b'"text": "', b'"text": "' + b'x' * 2**26)
      case 'bomb':
        body = gzip.compress(body.replace(b'"text": "', b'"text": "' + b'x' * 2**26), 1)
        headers['Content-Encoding'] = 'gzip'
      case 'bytes':
        body = body.replace(b'"text": "', b'"text": "\xff\xfe')
      case 'forget':
        self.sessions.clear()
      case 'cut':
        headers['Content-Length'] = str(len(body) + 1)
        self.close_connection = True
    self.send(200, body, **{name: value for name, value in headers.items() if value})

  def send(self, status, body, **headers):
    self.send_response(status)
    headers = {'Content-Type': 'application/json', 'Content-Length': str(len(body)), **headers}
    for name, value in headers.items():
      self.send_header(name, value)
    with contextlib.suppress(ConnectionError):  # enough for whoever asked
      self.end_headers()
      self.wfile.write(body)

  def do_GET(self):  # noqa: N802, the name is the method's
    self.send(405, b'')

  do_DELETE = do_GET  # noqa: N815

  def log_message(self, *_):
    pass


if MODE == 'http':
  http.server.ThreadingHTTPServer(('127.0.0.1', int(OPERANDS[0])), Handler).serve_forever()
else:
  serve_pipes()
