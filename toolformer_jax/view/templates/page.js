// Moving a slider shows what is kept at its threshold; submitting the form requests it.
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
