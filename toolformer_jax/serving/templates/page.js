'use strict';
const form = document.querySelector('form');
const [submit, stop, losses] = ['[type=submit]', '[name=stop]', '[name=losses]'].map(
  (selector) => form.querySelector(selector));
const text = document.getElementById('text');
const calls = document.getElementById('calls');
const status = document.getElementById('status');
let running = null;

function add(parent, tag, content, kind) {
  const element = document.createElement(tag);
  element.textContent = content;
  if (kind) element.className = kind;
  parent.append(element);
  return element;
}

async function post(body, signal) {
  const response = await fetch('/v1/completions', {
    method: 'POST', signal, headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({model: document.body.dataset.model, ...body})});
  if (!response.ok) throw new Error((await response.json()).error.message);
  return response;
}

function showCall(call) {
  const failed = call.error !== null;
  add(calls, 'li', `${call.name}(${call.arguments}) → ${failed ? call.error : call.output}`,
      failed ? 'failed' : '');
}

function take(line) {
  if (!line.startsWith('data: ') || line === 'data: [DONE]') return;
  const data = JSON.parse(line.slice(6));
  if (data.error) throw new Error(data.error.message);
  for (const choice of data.choices) {
    const made = choice.toolformer_calls || [];
    made.forEach(showCall);
    if (choice.text) add(text, 'span', choice.text, made.length ? 'call' : '');
    if (choice.finish_reason) status.textContent = `finished: ${choice.finish_reason}`;
  }
}

async function readStream(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const lines = (rest + value).split('\n');
    rest = lines.pop();
    lines.forEach(take);
  }
}

async function run(work) {
  running = new AbortController();
  submit.disabled = losses.disabled = true;
  stop.disabled = false;
  try {
    await work(running.signal);
  } catch (error) {
    status.textContent = error.name === 'AbortError' ? 'stopped' : error.message;
  }
  submit.disabled = false;
  losses.disabled = !text.textContent;
  stop.disabled = true;
}

form.addEventListener('submit', (event) => {
  event.preventDefault();
  const fields = new FormData(form);
  const prompt = fields.get('prompt');
  text.replaceChildren();
  calls.replaceChildren();
  status.textContent = 'running';
  add(text, 'span', prompt, 'prompt');
  run(async (signal) => readStream(await post({
    prompt, stream: true, max_tokens: Number(fields.get('max_tokens')), tools_in_text: true,
    temperature: Number(fields.get('temperature')), allowed_tools: fields.getAll('tool')}, signal)));
});

stop.addEventListener('click', () => running.abort());

losses.addEventListener('click', () => run(async (signal) => {
  const response = await post(
    {prompt: text.textContent, max_tokens: 0, echo: true, logprobs: 0}, signal);
  const {tokens, token_logprobs: logprobs} = (await response.json()).choices[0].logprobs;
  text.replaceChildren();
  tokens.forEach((token, i) => {
    const loss = logprobs[i] === null ? null : -logprobs[i];
    const kind = loss === null ? '' : `loss${Math.min(3, Math.floor(loss / 2))}`;
    add(text, 'span', token, kind).title = loss === null ? 'no loss' : loss.toFixed(2);
  });
}));
