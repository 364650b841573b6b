"use strict";
// Moves everything that depends on the threshold. Scores of each case come sorted, benign before IDC, so that a count
// is a binary search and every figure is exact at every threshold.
(() => {
  const data = JSON.parse(document.getElementById("report-data").textContent);
  const bytes = Uint8Array.from(atob(data.scores), (letter) => letter.charCodeAt(0));
  const scores = new Float32Array(bytes.buffer);
  const byId = (id) => document.getElementById(id);

  let start = 0;
  const cases = data.cases.map(([benign, idc, own], number) => {
    const middle = start + benign;
    const made = { number, own, benign: [start, middle], idc: [middle, middle + idc], fixed: data.fixed[number] };
    start = middle + idc;
    return made;
  });

  /** How many of the scores in [from, to) reach the threshold. */
  function reaching([from, to], threshold) {
    let low = from, high = to;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (scores[middle] >= threshold) high = middle; else low = middle + 1;
    }
    return to - low;
  }

  function count(one, threshold) {
    const at = threshold === "own" ? one.own : threshold;
    const fp = reaching(one.benign, at), tp = reaching(one.idc, at);
    return { tn: one.benign[1] - one.benign[0] - fp, fp, fn: one.idc[1] - one.idc[0] - tp, tp };
  }

  /** Rates of a confusion matrix, NaN where 0 / 0: the same definitions as in metrics.py. */
  function rates({ tn, fp, fn, tp }) {
    const sensitivity = tp / (tp + fn), specificity = tn / (tn + fp);
    const margins = Math.sqrt(tp + fn) * Math.sqrt(tn + fp) * Math.sqrt(tp + fp) * Math.sqrt(tn + fn);
    return {
      accuracy: (tp + tn) / (tn + fp + fn + tp),
      balanced_accuracy: (sensitivity + specificity) / 2,
      precision: tp / (tp + fp),
      sensitivity,
      specificity,
      npv: tn / (tn + fn),
      f1: (2 * tp) / (2 * tp + fp + fn),
      mcc: Math.max(-1, Math.min(1, (tp * tn - fp * fn) / margins)),
    };
  }

  function written(value) {
    if (!Number.isFinite(value)) return data.undefined;
    const text = Math.abs(value).toFixed(3);
    return value < 0 && Number(text) !== 0 ? "\u2212" + text : text;
  }
  const whole = (value) => value.toLocaleString("en-US");
  const short = (value) => String(Number(value.toPrecision(4)));

  function place(name, x, y) {
    const point = byId(name + "-point"), plot = data.plots[name], shown = Number.isFinite(x) && Number.isFinite(y);
    point.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    point.setAttribute("cx", plot.left + x * plot.width);
    point.setAttribute("cy", plot.top + (1 - y) * plot.height);
  }

  const slider = byId("slider"), exact = byId("exact"), table = byId("case-table"), body = table.tBodies[0];
  const lines = new Map([...body.rows].map((row) => [Number(row.dataset.case), row]));
  const dots = [...document.querySelectorAll("circle.dot")];
  const strip = dots.length ? dots[0].ownerSVGElement.querySelectorAll("line.grid") : [];
  let sorted = { key: "balanced_accuracy", rising: true }, current = [];

  function show(threshold) {
    current = cases.map((one) => {
      const counts = count(one, threshold);
      return { ...one.fixed, ...counts, ...rates(counts), case: one.number };
    });
    const total = { tn: 0, fp: 0, fn: 0, tp: 0 };
    for (const row of current) for (const key of Object.keys(total)) total[key] += row[key];
    const values = rates(total);
    for (const key of Object.keys(total)) byId("matrix-" + key).textContent = whole(total[key]);
    for (const cell of document.querySelectorAll("[data-metric]")) cell.textContent = written(values[cell.dataset.metric]);
    place("roc", 1 - values.specificity, values.sensitivity);
    place("pr", values.sensitivity, values.precision);
    for (const row of current) {
      for (const cell of lines.get(row.case).querySelectorAll("[data-field]")) {
        const key = cell.dataset.field;
        cell.textContent = key in total ? whole(row[key]) : written(row[key]);
      }
    }
    moveDots();
    sort();
    say(threshold);
  }

  function moveDots() {
    if (!strip.length) return;
    const left = Number(strip[0].getAttribute("x1")), right = Number(strip[strip.length - 1].getAttribute("x1"));
    for (const dot of dots) {
      const value = current[Number(dot.dataset.case)][dot.dataset.field];
      dot.setAttribute("visibility", Number.isFinite(value) ? "visible" : "hidden");
      if (Number.isFinite(value)) dot.setAttribute("cx", left + value * (right - left));
    }
  }

  function say(threshold) {
    const own = threshold === "own";
    byId("threshold-value").textContent = own ? "each fold’s own" : short(threshold);
    slider.setAttribute("aria-valuetext", own ? "each fold’s own threshold" : short(threshold));
    if (document.activeElement !== exact) exact.value = own ? "" : threshold;
    const line = byId("threshold-line"), x = own ? -20 : data.plots.histogram.left + threshold * data.plots.histogram.width;
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    const scaled = !own && data.temperature !== null && threshold > 0 && threshold < 1;
    const odds = scaled ? Math.log(threshold / (1 - threshold)) / data.temperature : 0;
    byId("calibrated").textContent = scaled ? "calibrated probability " + short(1 / (1 + Math.exp(-odds))) : "";
    for (const button of document.querySelectorAll(".presets button")) {
      button.setAttribute("aria-pressed", String(button.dataset.threshold === String(threshold)));
    }
  }

  /** Undefined figures stand last, whichever way is up. */
  function sort() {
    const name = (row) => lines.get(row.case).cells[0].textContent;
    const order = [...current].sort((a, b) => {
      const sign = sorted.rising ? 1 : -1;
      if (sorted.key === "case") return sign * name(a).localeCompare(name(b), "en", { numeric: true });
      const x = a[sorted.key], y = b[sorted.key];
      const known = [x, y].map((value) => value !== null && Number.isFinite(value));
      if (known[0] !== known[1]) return known[0] ? -1 : 1;
      return (known[0] && sign * (x - y)) || a.case - b.case;
    });
    const wanted = order.map((row) => lines.get(row.case));
    if (wanted.some((row, at) => row !== body.rows[at])) body.append(...wanted);
    for (const head of table.tHead.rows[0].cells) {
      if (head.dataset.key === sorted.key) head.setAttribute("aria-sort", sorted.rising ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    }
  }

  function nearest(threshold) {
    let best = 0;
    data.stops.forEach((stop, at) => {
      if (Math.abs(stop - threshold) < Math.abs(data.stops[best] - threshold)) best = at;
    });
    return best;
  }

  function choose(threshold) {
    if (threshold !== "own") slider.value = nearest(threshold);
    show(threshold);
  }

  slider.addEventListener("input", () => show(data.stops[Number(slider.value)]));
  exact.addEventListener("input", () => {
    const value = exact.valueAsNumber;
    if (value >= 0 && value <= 1) choose(value);
  });
  for (const button of document.querySelectorAll("button[data-threshold]")) {
    const wanted = button.dataset.threshold;
    button.addEventListener("click", () => choose(wanted === "own" ? wanted : Number(wanted)));
  }
  for (const head of table.tHead.rows[0].cells) {
    head.firstElementChild.addEventListener("click", () => {
      const key = head.dataset.key;
      sorted = { key, rising: sorted.key === key ? !sorted.rising : !["patches", "tp", "fn", "fp", "tn"].includes(key) };
      sort();
    });
  }
  // Printed, what is folded away is there too.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

  slider.value = nearest(data.start === "own" ? 0.5 : data.start);
  show(data.start);
  document.documentElement.dataset.ready = "true";
})();
