// Moving a slider shows what is kept at its threshold; submitting the form requests it.
'use strict';
for (const panel of document.querySelectorAll('[data-steps]')) {
  const steps = JSON.parse(panel.dataset.steps);
  const [slider, number] = panel.querySelectorAll('input');
  const outputs = panel.querySelectorAll('output');
  const line = panel.querySelector('.threshold');
  const shown = [...document.querySelectorAll('[data-gain], [data-bound]')]
    .filter((element) => element.dataset.tool === panel.dataset.tool);
  slider.max = steps.length - 1;
  slider.value = panel.dataset.step;
  slider.hidden = false;
  slider.addEventListener('input', () => {
    const [tau, ...counts] = steps[slider.value];
    const place = counts.pop();
    number.value = tau;
    outputs.forEach((output, index) => { output.textContent = counts[index]; });
    line.setAttribute('x1', place);
    line.setAttribute('x2', place);
    for (const element of shown) {
      const known = 'gain' in element.dataset;
      const passes = Number(known ? element.dataset.gain : element.dataset.bound) >= tau;
      const state = !passes ? 'rejected' : known ? 'kept' : 'unknown';
      for (const name of ['kept', 'rejected', 'unknown']) {
        element.classList.toggle(name, name === state);
      }
      if (element.matches('td')) {
        element.textContent = state === 'unknown' ? 'gain not known' : state;
      }
    }
  });
  number.addEventListener('change', () => number.form.requestSubmit());
}
