// The lines of a run: loss with smoothing, log scale, zoom and a second run; rate, speed, memory and gradient norm.
// The server sends buckets once and then only new ones (`after`); a zoom asks for the steps it shows.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { colour } from "./colour.js";
import { every, json } from "./live.js";

const root = document.querySelector("[data-run-charts]");
const smooth = root.querySelector("[data-smooth]");
const logScale = root.querySelector("[data-log-scale]");
const clip = root.querySelector("[data-clip]");
const other = root.querySelector("[data-other]");
const whole = root.querySelector("[data-whole]");
const words = root.querySelector("[data-words=loss]");
const hint = words.textContent;
const SMALL = ["lr", "it_s", "vram_gb", "grad_norm"];

const empty = () => ({ steps: [], lines: {}, after: null, of: 0, complete: true });
let own = empty(); // all of this run
let close = null; // the steps zoomed into, finer
let second = null; // the other run
let range = null; // [first, last] step shown
const charts = {};
const shown = (value) => (value == null ? "–" : Number(value.toPrecision(4)).toString());

// --- data -----------------------------------------------------------------------------------------------------------

function take(into, answer) {
  into.steps.length = Math.min(into.steps.length, answer.first);
  const before = into.steps.length;
  into.steps.push(...answer.steps);
  for (const name of new Set([...Object.keys(into.lines), ...Object.keys(answer.lines)])) {
    const line = (into.lines[name] ??= []);
    line.length = Math.min(line.length, before);
    while (line.length < before) line.push(null);
    line.push(...(answer.lines[name] ?? new Array(answer.steps.length).fill(null)));
  }
  Object.assign(into, { after: answer.after, of: answer.of, complete: answer.complete });
}

async function read(url, into, query = {}) {
  const asked = new URLSearchParams(query);
  if (into.after) asked.set("after", into.after);
  const answer = await json(`${url}?${asked}`);
  const changed = answer.steps.length > 0 || answer.first < into.steps.length;
  take(into, answer);
  return changed;
}

// Exponential mean with the bias of its start taken out; nothing follows from what the run did not tell.
function smoothed(values, keep) {
  let total = 0;
  let weight = 0;
  return values.map((value) => {
    if (value == null) return null;
    total = keep * total + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    return total / weight;
  });
}

const bands = (data) => [data.lines.loss_low ?? data.lines.loss ?? [], data.lines.loss_high ?? data.lines.loss ?? []];

function lossTable() {
  const data = close ?? own;
  const loss = data.lines.loss ?? [];
  // Zoomed in, the smoothed line is still that of the whole run: smoothing a part alone would bend its beginning.
  const keep = Number(smooth.value);
  const first = [data.steps, loss, ...bands(data)];
  const tables = [first, [own.steps, smoothed(own.lines.loss ?? [], keep)]];
  tables.push(second
    ? [second.steps, second.lines.loss ?? [], smoothed(second.lines.loss ?? [], keep)]
    : [[], [], []]);
  return uPlot.join(tables.map((table) => table.map((line) => [...line])));
}

// --- drawing --------------------------------------------------------------------------------------------------------

const faint = (name, share) => `color-mix(in srgb, ${colour(name)} ${share}%, transparent)`;

function axes(format, room = 56) {
  const line = { stroke: colour("--text-quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  return [
    { ...line, font, size: 28, grid: { show: false }, values: (_, steps) => steps.map((step) => (Number.isInteger(step) ? step.toLocaleString() : "")) },
    { ...line, font, size: room, values: (_, values) => values.map(format ?? ((value) => (value == null ? "" : shown(value)))) },
  ];
}

// What most points lie within: a single spike must not press the rest flat.
function limits(chart, low, high) {
  if (low == null || high == null) return [0, 1];
  if (clip.checked && !logScale.checked) {
    const values = (close ?? own).lines.loss?.filter((value) => value != null) ?? [];
    if (values.length > 20) {
      const sorted = [...values].sort((a, b) => a - b);
      const at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
      const room = (at(0.98) - at(0.02)) * 0.35;
      low = Math.max(low, at(0.02) - room);
      high = Math.min(high, at(0.98) + room);
    }
  }
  if (logScale.checked) return [Math.max(low, 1e-9) * 0.95, high * 1.05];
  const margin = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
  return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
}

// A first step alone must still have a width: uPlot would divide an axis of none for ever.
function stepsShown() {
  if (range) return range;
  const begin = own.steps[0] ?? 0;
  return [begin, Math.max(own.steps.at(-1) ?? 0, begin + 1)];
}

function width(element) { return Math.max(240, element.clientWidth); }

function drawLoss() {
  charts.loss?.destroy();
  const place = root.querySelector("[data-chart=loss]");
  const name = root.dataset.name;
  charts.loss = new uPlot({
    width: width(place),
    height: place.clientWidth < 500 ? 240 : 320,
    cursor: { drag: { x: true, y: false, setScale: false }, sync: { key: "steps", scales: ["x", null] } },
    legend: { show: false },
    scales: { x: { time: false, range: stepsShown }, y: { distr: logScale.checked ? 3 : 1, range: limits } },
    axes: axes(),
    series: [
      {},
      { label: name, stroke: faint("--accent", 45), width: 1, points: { show: false } },
      { label: "lowest", stroke: "transparent", points: { show: false } },
      { label: "highest", stroke: "transparent", points: { show: false } },
      { label: "smoothed", stroke: colour("--accent"), width: 2.5, points: { show: false }, spanGaps: true },
      { label: "other", stroke: faint("--line-2", 35), width: 1, points: { show: false }, spanGaps: true },
      { label: "other, smoothed", stroke: colour("--line-2"), width: 2.5, dash: [6, 4], points: { show: false }, spanGaps: true },
    ],
    bands: [{ series: [3, 2], fill: faint("--accent", 16) }],
    hooks: {
      setSelect: [(chart) => {
        const { left, width: wide } = chart.select;
        if (wide < 4) return;
        const ends = [chart.posToVal(left, "x"), chart.posToVal(left + wide, "x")].map(Math.round);
        chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        zoom(ends[1] > ends[0] ? ends : null);
      }],
      setCursor: [tell],
    },
  }, lossTable(), place);
  charts.loss.over.addEventListener("dblclick", () => zoom(null));
}

function drawSmall() {
  for (const key of SMALL) {
    const figure = root.querySelector(`[data-line=${key}]`);
    const values = own.lines[key];
    figure.hidden = !values?.some((value) => value != null);
    charts[key]?.destroy();
    delete charts[key];
    if (figure.hidden) continue;
    const place = root.querySelector(`[data-chart=${key}]`);
    charts[key] = new uPlot({
      width: width(place),
      height: 120,
      cursor: { y: false, drag: { x: false, y: false }, sync: { key: "steps", scales: ["x", null] } },
      legend: { show: false },
      scales: { x: { time: false, range: stepsShown }, y: { range: (_, low, high) => spread(low, high) } },
      axes: axes(key === "lr" ? (value) => (value ? value.toExponential(0) : "0") : undefined, 44),
      series: [{}, { stroke: colour("--line-3"), width: 1.5, points: { show: false }, spanGaps: true }],
    }, [[...own.steps], [...values]], place);
  }
  latest();
}

function spread(low, high) {
  if (low == null) return [0, 1];
  const margin = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
}

function latest() {
  for (const key of SMALL) {
    const value = own.lines[key]?.findLast((one) => one != null);
    root.querySelector(`[data-latest=${key}]`).textContent = key === "lr" && value != null ? value.toExponential(2) : shown(value);
  }
}

function tell(chart) {
  const at = chart.cursor.idx;
  if (at == null || chart.cursor.left < 0) {
    words.textContent = summary();
    return;
  }
  const [step, loss, low, high, soft, , otherSoft] = chart.data.map((line) => line[at]);
  const parts = [`Step ${step.toLocaleString()}`];
  if (loss != null) parts.push(`loss ${shown(loss)}${low != null && high != null && low !== high ? ` (${shown(low)} to ${shown(high)})` : ""}`);
  if (soft != null) parts.push(`smoothed ${shown(soft)}`);
  if (otherSoft != null) parts.push(`${other.value} ${shown(otherSoft)}`);
  words.textContent = parts.join(" · ");
}

function summary() {
  if (!own.steps.length) return own.complete ? "No step is told yet. The line begins with the first step." : "Reading the history.";
  return second ? `Solid: ${root.dataset.name}. Dashed: ${other.value}. ${hint}` : hint;
}

function draw() {
  drawLoss();
  drawSmall();
  words.textContent = summary();
  const loss = smoothed(own.lines.loss ?? [], Number(smooth.value));
  const place = root.querySelector("[data-chart=loss]");
  place.setAttribute("aria-label", own.steps.length
    ? `Loss over steps ${own.steps[0]} to ${own.steps.at(-1)}: smoothed ${shown(loss[0])} at first, ${shown(loss.at(-1))} now`
    : "Loss over steps; nothing is told yet");
  place.dataset.points = String(own.steps.length);
}

function update() {
  if (!charts.loss) return draw();
  const there = SMALL.every((key) => Boolean(charts[key]) === Boolean(own.lines[key]?.some((value) => value != null)));
  if (!there) return draw();
  charts.loss.setData(lossTable());
  for (const key of SMALL) charts[key]?.setData([[...own.steps], [...own.lines[key]]]);
  latest();
  if (charts.loss.cursor.left < 0) words.textContent = summary();
  root.querySelector("[data-chart=loss]").dataset.points = String(own.steps.length);
}

async function zoom(ends) {
  range = ends;
  close = null;
  whole.hidden = !ends;
  if (ends) {
    const finer = empty();
    try {
      await read(root.dataset.url, finer, { from_step: ends[0], to_step: ends[1] });
      if (range === ends && finer.steps.length) close = finer;
    } catch {
      close = null; // the coarse line stays; the next poll reports what is wrong
    }
  }
  update();
}

// --- controls -------------------------------------------------------------------------------------------------------

smooth.addEventListener("input", update);
clip.addEventListener("change", () => charts.loss?.setData(lossTable()));
logScale.addEventListener("change", draw);
whole.addEventListener("click", () => zoom(null));
other.addEventListener("change", async () => {
  second = null;
  if (other.value) {
    const found = empty();
    do await read(other.dataset.url.replace("RUN", encodeURIComponent(other.value)), found); while (!found.complete);
    second = found;
  }
  update();
});
document.addEventListener("pilot:theme", () => { if (charts.loss) draw(); });

let measured = 0;
new ResizeObserver(() => {
  if (!charts.loss || root.clientWidth === measured) return;
  measured = root.clientWidth;
  requestAnimationFrame(() => {
    for (const [key, chart] of Object.entries(charts)) {
      const place = root.querySelector(`[data-chart=${key}]`);
      chart.setSize({ width: width(place), height: chart.height });
    }
  });
}).observe(root);

let first = true;
every(root.dataset.active ? 2 : 10, async () => {
  let changed;
  do {
    changed = (await read(root.dataset.url, own)) || changed;
    if (!own.complete && own.steps.length) update();
  } while (!own.complete);
  if (first || changed) update();
  first = false;
});
