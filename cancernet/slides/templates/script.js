"use strict";
// Draws probability and calls, and counts area at the threshold of the slider.
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const probability = new Float32Array(bytes(data.probability).buffer);
  const tissue = bytes(data.tissue);
  const truth = data.truth === null ? null : bytes(data.truth);
  const byId = (id) => document.getElementById(id);
  const IDC = [194, 65, 124], BENIGN = [42, 111, 151];

  /** Paint each cell with the colour (red, green, blue, opacity) that `choose` gives for its number, or not at all. */
  function paint(id, choose) {
    const context = byId(id).getContext("2d"), image = context.createImageData(data.columns, data.rows);
    for (let cell = 0; cell < probability.length; cell += 1) {
      const colour = choose(cell);
      if (colour !== null) image.data.set(colour, 4 * cell);
    }
    context.putImageData(image, 0, 0);
  }

  function show(threshold) {
    let called = 0, all = 0, both = 0, either = 0;
    for (let cell = 0; cell < probability.length; cell += 1) {
      const known = !Number.isNaN(probability[cell]), is = known && probability[cell] >= threshold;
      if (known) all += tissue[cell];
      if (is) called += tissue[cell];
      if (truth !== null) {
        both += is && truth[cell] ? 1 : 0;
        either += (is ? 1 : 0) + truth[cell];
      }
    }
    paint("calls", (cell) => Number.isNaN(probability[cell]) ? null : [...(probability[cell] >= threshold ? IDC : BENIGN), 140]);
    const area = Number((called / 255 * data.area).toPrecision(4)) + " mm\u00b2";
    const share = all ? (100 * called / all).toFixed(1) + "\u00a0%" : "\u2013";
    for (const id of ["idc-area", "said-area"]) byId(id).textContent = area;
    for (const id of ["idc-share", "said-share"]) byId(id).textContent = share;
    if (truth !== null) byId("dice").textContent = either ? (2 * both / either).toFixed(3) : "\u2013";
    byId("threshold-value").textContent = String(Number(threshold.toPrecision(4)));
    const scaled = data.temperature !== null && threshold > 0 && threshold < 1;
    const odds = scaled ? Math.log(threshold / (1 - threshold)) / data.temperature : 0;
    byId("calibrated").textContent = scaled ? "calibrated probability " + Number((1 / (1 + Math.exp(-odds))).toPrecision(4)) : "";
    for (const button of document.querySelectorAll(".presets button")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.threshold) === threshold));
    }
  }

  paint("probability", (cell) => {
    const value = probability[cell];
    return Number.isNaN(value) ? null : [...data.ramp[Math.round(255 * value)], 255];
  });
  if (truth !== null) paint("truth", (cell) => [...(truth[cell] ? IDC : BENIGN), truth[cell] ? 140 : 60]);
  byId("slider").addEventListener("input", () => show(Number(byId("slider").value)));
  for (const button of document.querySelectorAll("button[data-threshold]")) {
    button.addEventListener("click", () => {
      byId("slider").value = button.dataset.threshold;
      show(Number(button.dataset.threshold));
    });
  }
  show(data.threshold);
  document.documentElement.dataset.ready = "true";
})();
