"""The page at /: a prompt, the stream of its continuation with the calls in it, losses of tokens.
"""

import base64
import hashlib
import importlib.resources

import jinja2
import markupsafe

from toolformer_jax.serving.service import Service


def _read(name: str) -> markupsafe.Markup:
  path = importlib.resources.files(__package__) / 'templates' / name
  return markupsafe.Markup(path.read_text('utf-8'))


def _csp_hash(content: str) -> str:
  """Returns the source expression by which a policy allows inline `content`."""
  digest = hashlib.sha256(content.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"


_STYLE, _SCRIPT = _read('style.css'), _read('page.js')
# The inline style sheet and script are allowed by their hashes, and nothing else is.
CONTENT_SECURITY_POLICY = '; '.join((
    "default-src 'none'", f'style-src {_csp_hash(_STYLE)}', f'script-src {_csp_hash(_SCRIPT)}',
    "connect-src 'self'", "form-action 'none'", "base-uri 'none'", "frame-ancestors 'none'"))
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader('toolformer_jax.serving'), autoescape=True,
    undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def playground_page(service: Service) -> str:
  """Returns the page."""
  return _TEMPLATES.get_template('playground.html').render(
      style=_STYLE, script=_SCRIPT, name=service.name, tools=service.tool_names,
      max_tokens=service.generation.max_tokens, limit=service.limits.max_tokens)
