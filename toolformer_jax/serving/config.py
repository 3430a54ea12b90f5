"""The limits of the server, and what it logs."""

from dataclasses import dataclass

from toolformer_jax.errors import UserError
from toolformer_jax.runtime.validation import check


@dataclass(frozen=True)
class ServingConfig:
  """What a client may ask for, and what is written to the log.

  Attributes:
    max_waiting: requests that may wait for a slot; more are refused with status 429.
    max_body_bytes: of a request, without its pictures and sounds.
    max_media: pictures and sounds of a request.
    max_media_bytes: of the pictures and sounds of a request, all together.
    max_tokens: the most that a request may ask for, and what a chat gets that asks for nothing.
    max_n: texts that one request may ask for, all prompts together.
    max_stop: stop strings of a request.
    max_stop_chars: of a stop string.
    prefix_cache_gib: memory for the keys and values of beginnings that prompts share, in GiB, so
      that a prompt reads only what follows; 0 for none.
    tools_in_text: whether the text contains the calls, unless the request says otherwise.
    log_content: log prompts, texts and calls. Otherwise only their sizes are logged.
    redact: what is masked in the log: 'numbers' (of four digits and more), 'addresses' (of mail,
      web and network).
    redact_names: these words are masked in the log too, in any case.
    redact_tools: mask the same in the arguments of tools.
  """

  max_waiting: int = 256
  max_body_bytes: int = 1 << 20
  max_media: int = 8
  max_media_bytes: int = 8 << 20
  max_tokens: int = 1024
  max_n: int = 16
  max_stop: int = 8
  max_stop_chars: int = 100
  prefix_cache_gib: float = 0.5
  tools_in_text: bool = True
  log_content: bool = False
  redact: tuple[str, ...] = ()
  redact_names: tuple[str, ...] = ()
  redact_tools: bool = False

  def __post_init__(self) -> None:
    check(self, max_waiting=(0, 10**6), max_body_bytes=(1, 2**30), max_media=(0, 1000),
          max_media_bytes=(0, 2**30), max_tokens=(1, 10**6), max_n=(1, 10_000),
          max_stop=(0, 1000), max_stop_chars=(1, 100_000), prefix_cache_gib=(0.0, 10_000.0))
    for kind in self.redact:
      if kind not in ('numbers', 'addresses'):
        raise UserError("ServingConfig.redact may hold 'numbers' and 'addresses', "
                        f'not {kind!r}')
    if not all(isinstance(name, str) and name.strip() for name in self.redact_names):
      raise UserError('ServingConfig.redact_names must hold names, not '
                      f'{self.redact_names!r}')
