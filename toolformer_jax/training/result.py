"""The result of a fine-tuning run, and its summary."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from etils import epath

from toolformer_jax.models.language_model import LanguageModel
from toolformer_jax.runtime.departures import Departure, departures_section


@dataclass(frozen=True)
class FinetuneResult:
  """The outcome of a fine-tuning run.

  Attributes:
    model: the trained model; None if the run was asked to stop before its end.
    metrics: of every step: loss, gradient norm, learning rate, seconds, and so on.
    output_dir: the folder of the run; None if it had none.
    texts: number of texts of an epoch; None for a stream.
    departures: settings that differ from what the paper states.
    delta: of the guarantee of differential privacy; None without privacy.
    max_steps: steps that the run would have done without early stopping; None if not known.
  """

  model: LanguageModel | None
  metrics: tuple[dict[str, Any], ...]
  output_dir: epath.Path | None
  texts: int | None
  departures: tuple[Departure, ...] = ()
  delta: float | None = None
  max_steps: int | None = None

  @property
  def finished(self) -> bool:
    """Whether the run has reached its end; otherwise the same call continues it."""
    return self.model is not None

  def to_records(self) -> list[dict[str, Any]]:
    """Returns the metrics as a list of dicts, for a data frame."""
    return list(self.metrics)

  def summary(self) -> str:
    """Returns one paragraph: steps, epochs, texts, tokens, losses, and where the checkpoint is."""
    if not self.metrics:
      return 'No step was done.'
    last, tokens = self.metrics[-1], sum(step['tokens'] for step in self.metrics)
    read = ('a stream of texts' if self.texts is None
            else f'{last["epoch"]:.1f} epochs of {self.texts:,} texts')
    steps = f'{last["step"]:,} step{"" if last["step"] == 1 else "s"}'
    sentences = [f'{"Trained" if self.finished else "Stopped after"} {steps}: '
                 f'{read}, {tokens:,} tokens.',
                 f'The training loss went from {self.metrics[0]["loss"]:.3f} to {last["loss"]:.3f} '
                 'nats per token.']
    if self.finished and last['step'] < (self.max_steps or 0):
      sentences.append(f'It ended before step {self.max_steps:,}, because the dev loss did not '
                       'fall any more (FinetuneConfig.patience).')
    measured = [step for step in self.metrics if 'dev_loss' in step]
    if measured:
      best = min(measured, key=lambda step: step['dev_loss'])
      sentences.append(f'The lowest dev loss was {best["dev_loss"]:.3f}, at step {best["step"]:,}'
                       + ('; that checkpoint is the result.' if self.finished else '.'))
    if self.delta is not None:
      sentences.append(self._privacy(self.delta))
    if self.output_dir:
      sentences.append(f'The checkpoint is in {self.output_dir}.' if self.finished else
                       'The same command continues from the saved state.')
    return ' '.join(sentences)

  def _privacy(self, delta: float) -> str:
    """Returns the guarantee that each text has, in a sentence."""
    spent = [step['epsilon'] for step in self.metrics if 'epsilon' in step]
    if not spent:
      return 'The texts are not protected: no noise was added, or no state was saved.'
    # Never less than it is.
    epsilon = math.ceil(100 * Decimal(repr(spent[-1]))) / 100
    return (f'Each text is protected by ({epsilon:.2f}, {delta:g})-differential privacy in the '
            'model; the losses of this report are not protected.')

  @property
  def report(self) -> str:
    """The summary and the departures from the paper in Markdown, the content of report.md."""
    return f'# Fine-tuning\n\n{self.summary()}\n\n{departures_section(self.departures)}\n'

  def __repr__(self) -> str:
    losses = [step['loss'] for step in self.metrics]
    trend = f', loss {losses[0]:.3f} to {losses[-1]:.3f}' if losses else ''
    return f'FinetuneResult({len(losses)} steps{trend})'
