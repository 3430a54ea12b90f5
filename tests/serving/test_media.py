"""Pictures and sounds of a message become handles that tools can read, and nothing else is opened.
"""

import base64
import copy
import dataclasses
import hashlib
import io
import pathlib
import tempfile
import time
import wave

import openai
import pytest

from toolformer_jax.serving.config import ServingConfig
from toolformer_jax.serving.errors import ApiError
from toolformer_jax.serving.media import RequestMedia
from toolformer_jax.serving.protocol import ChatRequest, ResponsesRequest
from toolformer_jax.tools.base import ToolError

LIMITS = ServingConfig(max_media=2, max_media_bytes=2000, max_body_bytes=3000)
# A picture of one pixel: the first bytes tell its kind, no tool here decodes it.
PICTURE = b'\x89PNG\r\n\x1a\n' + bytes(50)


def sound():
  file = io.BytesIO()
  with wave.open(file, 'wb') as written:
    written.setnchannels(1)
    written.setsampwidth(2)
    written.setframerate(8000)
    written.writeframes(bytes(200))
  return file.getvalue()


def picture_part(content=PICTURE):
  data = base64.b64encode(content).decode()
  return {'type': 'image_url', 'image_url': {'url': f'data:image/png;base64,{data}'}}


def sound_part(content=None):
  data = base64.b64encode(content or sound()).decode()
  return {'type': 'input_audio', 'input_audio': {'data': data, 'format': 'wav'}}


def text_part(text):
  return {'type': 'text', 'text': text}


class Up:
  """Answers what the model has learned, and keeps what it has seen of the media."""

  name, version = 'Up', '1'

  def __init__(self):
    self.seen = []

  def __call__(self, argument, context):
    try:
      context.media.resolve('/etc/passwd')
      raise AssertionError('it is no handle')
    except ToolError:
      pass
    self.seen.append({handle: hashlib.sha256(medium.read_bytes()).hexdigest()
                      for handle, medium in context.media})
    self.files = [medium.file for _, medium in context.media]
    return {'ab': 'XY', 'cd': 'ZW'}[argument]


@pytest.fixture(scope='module')
def tool():
  return Up()


@pytest.fixture(scope='module')
def client(taught, running, tool):
  """A server whose template continues the last words of the last message, which make a call."""
  tokenizer = copy.copy(taught.tokenizer)
  tokenizer.chat_template = "{{ messages[-1].content.split('|')[-1] }}"
  model = dataclasses.replace(taught, tokenizer=tokenizer)
  with running(model, tool, limits=LIMITS) as server:
    yield server.client()


def sha256(content):
  return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize('stream', [False, True])
def test_a_tool_reads_the_media_of_its_request(client, tool, stream):
  answer = client.chat.completions.create(
      model='tiny', max_tokens=6, stream=stream, messages=[
          {'role': 'user', 'content': [sound_part(), text_part('and')]},
          {'role': 'user', 'content': [picture_part(), text_part('|ab is')]}])
  text = (''.join(piece.choices[0].delta.content or '' for piece in answer) if stream
          else answer.choices[0].message.content)
  assert text == ' [Up(ab) -> XY] XY.'
  assert tool.seen[-1] == {'audio 1': sha256(sound()), 'image 1': sha256(PICTURE)}
  assert len(tool.files) == 2
  until = time.monotonic() + 10
  while any(file.exists() for file in tool.files):  # deleted when the response has ended
    assert time.monotonic() < until
    time.sleep(0.01)


def test_a_tool_reads_the_media_of_a_response(client, tool):
  url = picture_part()['image_url']['url']
  response = client.responses.create(model='tiny', input=[{'role': 'user', 'content': [
      {'type': 'input_text', 'text': 'see'}, {'type': 'input_image', 'image_url': url},
      {'type': 'input_text', 'text': '|ab is'}]}])
  assert response.output[0].output == 'XY' and response.output_text == ' XY.'
  assert tool.seen[-1] == {'image 1': sha256(PICTURE)}


def test_media_are_of_their_own_request(client, tool):
  client.chat.completions.create(model='tiny', max_tokens=6,
                                 messages=[{'role': 'user', 'content': 'ab is'}])
  assert tool.seen[-1] == {}


def test_what_a_tool_makes_belongs_to_its_text_alone(serve, tmp_path):
  (tmp_path / 'made.wav').write_bytes(sound())
  seen = []
  class Up:  # noqa: F811
    name, version = 'Up', '1'
    def __call__(self, argument, context):
      seen.append(len(context.media))
      return context.media.add(tmp_path / 'made.wav')
  with serve(Up()) as server:
    for fields in ({'n': 3}, {}):
      answer = server.post('completions', prompt='ab is', **fields).json()
      assert [choice['toolformer_calls'][0]['output'] for choice in answer['choices']] == (
          ['audio 1'] * fields.get('n', 1))
  assert seen == [0] * 4


def test_the_handle_stands_where_the_part_stood(serve, tool):
  with serve(tool) as server:
    def prompt_tokens(content):
      answer = server.client().chat.completions.create(
          model='tiny', max_tokens=1, messages=[{'role': 'user', 'content': content}])
      return answer.usage.prompt_tokens
    parts = [text_part('see'), picture_part(), picture_part(), text_part('and'), sound_part(),
             text_part(' of ab')]
    assert prompt_tokens(parts) == prompt_tokens('see image 1 image 2 and audio 1 of ab')


@pytest.mark.parametrize(('parts', 'message'), [
    ([{'type': 'image_url', 'image_url': {'url': 'http://127.0.0.1:1/a.png'}}], 'no addresses'),
    ([{'type': 'image_url', 'image_url': {'url': 'https://example.org/a.png'}}], 'no addresses'),
    ([{'type': 'image_url', 'image_url': {'url': 'file:///etc/passwd'}}], 'no addresses'),
    ([{'type': 'image_url', 'image_url': {'url': '/etc/passwd'}}], 'no addresses'),
    ([{'type': 'image_url', 'image_url': {'url': 'data:image/png,abc'}}], 'base64'),
    ([{'type': 'image_url', 'image_url': {'url': 'data:image/png;base64,!'}}], 'not base64'),
    ([{'type': 'image_url', 'image_url': {'url': 'data:image/png;base64,AAAA'}}],
     'content is none'),
    ([{'type': 'image_url'}], 'no addresses'),
    ([{'type': 'input_audio', 'input_audio': {'data': 'http://a', 'format': 'mp3'}}], 'not base64'),
    ([{'type': 'input_audio'}], 'content is none'),
    ([picture_part()] * 3, '2 pictures and sounds at most'),
    ([picture_part(PICTURE + bytes(1200)), picture_part(PICTURE + bytes(1200))], '2000 bytes'),
    ([picture_part(PICTURE + bytes(1000)), text_part('a' * 500)], 'maximum context length')])
def test_what_is_no_medium_is_refused(client, tool, parts, message):
  before = set(pathlib.Path(tempfile.gettempdir()).glob('toolformer-*'))
  calls = len(tool.seen)
  with pytest.raises(openai.BadRequestError, match=message) as refused:
    client.chat.completions.create(model='tiny', max_tokens=6,
                                   messages=[{'role': 'user', 'content': parts}])
  assert refused.value.type == 'invalid_request_error'
  assert len(tool.seen) == calls
  assert set(pathlib.Path(tempfile.gettempdir()).glob('toolformer-*')) == before


def test_a_server_without_tools_takes_no_media():
  for kind, fields in ((ChatRequest, 'messages'), (ResponsesRequest, 'input')):
    parts = [picture_part()] if kind is ChatRequest else [
        {'type': 'input_image', 'image_url': picture_part()['image_url']['url']}]
    request = kind(model='tiny', **{fields: [{'role': 'user', 'content': parts}]})
    with pytest.raises(ApiError, match='no tool that reads pictures') as refused:
      RequestMedia.of(request, LIMITS, has_tools=False)
    assert refused.value.param == fields and refused.value.status == 400


def test_bodies_are_as_large_as_their_media_may_be(client):
  large = {'role': 'user', 'content': [picture_part(bytes(6000))]}
  with pytest.raises(openai.APIStatusError, match='the body is larger than 5668 bytes'):
    client.chat.completions.create(model='tiny', messages=[large])
