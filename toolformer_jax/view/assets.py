"""The style sheet and the script of the pages: inline, and the only ones that a browser accepts."""

import base64
import hashlib

STYLE = '''
:root { color-scheme: light dark; --page: #fff; --panel: #f6f7f8; --ink: #1b1f24; --soft: #5b6470;
  --line: #d5d9de; --link: #0b57c2; --bad: #d1242f; --middle: #9aa2ab; --good: #1a8f3c;
  --gain: var(--middle); }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --panel: #1d2125; --ink: #e4e7ea;
  --soft: #9aa4ae; --line: #363c43; --link: #7fb3ff; --bad: #ff6a63; --middle: #7d858e;
  --good: #45c46b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.2rem 1rem 3rem; background: var(--page);
  color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
a { color: var(--link); }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1rem; margin: 0; }
.soft, .stages { color: var(--soft); font-size: .85rem; font-weight: 400; }
.stages { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; padding: 0;
  margin: .3rem 0 1rem; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: .5rem;
  padding: .8rem 1rem; margin: 0 0 1rem; }
.panel > h2, article > h2 { display: flex; flex-wrap: wrap; gap: 0 .8rem;
  align-items: baseline; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1.2rem; align-items: center; }
.controls output { font-weight: 600; }
label { display: inline-flex; gap: .4rem; align-items: center; }
/* Under the histogram, whose margins are 16 of 672; half of the thumb stands out. */
input[type=range] { width: calc(100% * 640 / 672 + 16px); accent-color: var(--link);
  margin: .2rem calc(100% * 16 / 672 - 8px); }
input[type=number] { width: 6.5rem; }
input, select, button { font: inherit; }
svg { display: block; width: 100%; height: auto; font-size: 12px; }
@media (max-width: 40rem) { svg { font-size: 17px; } }
svg text { fill: var(--soft); }
svg .tick { text-anchor: middle; }
svg rect { fill: var(--gain); }
svg line { stroke: var(--line); }
svg .threshold { stroke: var(--ink); stroke-width: 2; stroke-dasharray: 4 3; }
.g0 { --gain: var(--bad); }
.g1 { --gain: color-mix(in oklab, var(--bad) 75%, var(--middle)); }
.g2 { --gain: color-mix(in oklab, var(--bad) 50%, var(--middle)); }
.g3 { --gain: color-mix(in oklab, var(--bad) 25%, var(--middle)); }
.g4 { --gain: var(--middle); }
.g5 { --gain: color-mix(in oklab, var(--good) 25%, var(--middle)); }
.g6 { --gain: color-mix(in oklab, var(--good) 50%, var(--middle)); }
.g7 { --gain: color-mix(in oklab, var(--good) 75%, var(--middle)); }
.g8 { --gain: var(--good); }
article { border-top: 1px solid var(--line); padding: .9rem 0; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0; line-height: 1.9; }
.call { display: inline-block; max-width: min(100%, 34rem); overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; vertical-align: middle; line-height: 1.45;
  margin: 0 .15rem; padding: 0 .4rem; border-radius: .35rem; font-size: .86rem;
  border: 1.5px dashed var(--gain); color: var(--soft); unicode-bidi: isolate; }
.call.kept { border-style: solid; color: var(--ink); font-weight: 600;
  background: color-mix(in oklab, var(--gain) 32%, var(--page)); }
.call.kept::before { content: '\\2713  '; }
.call.failed, .call.pending { border-style: dotted; font-style: italic; }
.call b { margin-right: .35rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; width: 100%;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; text-align: left; }
th, td { padding: .15rem .9rem .15rem 0; vertical-align: top; white-space: nowrap; }
td:first-child, td:last-child { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; }
td:first-child { min-width: 14rem; }
.number { text-align: right; }
@media (max-width: 40rem) { table { font-size: .78rem; } th, td { padding-right: .5rem; }
  th { white-space: normal; vertical-align: bottom; } td:first-child { min-width: 7rem; }
  td:last-child { min-width: 4.5rem; } }
.state.kept { font-weight: 600; }
nav { display: flex; gap: 1.2rem; margin: 1rem 0; }
'''

# Moving a slider shows what is kept under its threshold; the form asks for it.
SCRIPT = '''
'use strict';
for (const panel of document.querySelectorAll('[data-steps]')) {
  const steps = JSON.parse(panel.dataset.steps);
  const [slider, number] = panel.querySelectorAll('input');
  const [calls, texts] = panel.querySelectorAll('output');
  const line = panel.querySelector('.threshold');
  const shown = [...document.querySelectorAll('[data-gain]')]
    .filter((element) => element.dataset.tool === panel.dataset.tool);
  slider.max = steps.length - 1;
  slider.value = panel.dataset.step;
  slider.hidden = false;
  slider.addEventListener('input', () => {
    const [tau, keptCalls, keptTexts, place] = steps[slider.value];
    number.value = tau;
    calls.textContent = keptCalls;
    texts.textContent = keptTexts;
    line.setAttribute('x1', place);
    line.setAttribute('x2', place);
    for (const element of shown) {
      const kept = Number(element.dataset.gain) >= tau;
      element.classList.toggle('kept', kept);
      element.classList.toggle('rejected', !kept);
      if (element.matches('td')) element.textContent = kept ? 'kept' : 'rejected';
    }
  });
  number.addEventListener('change', () => number.form.requestSubmit());
}
'''


def _hash(content: str) -> str:
  digest = hashlib.sha256(content.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"


CONTENT_SECURITY_POLICY = '; '.join((
    "default-src 'none'", f'style-src {_hash(STYLE)}', f'script-src {_hash(SCRIPT)}',
    "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"))
