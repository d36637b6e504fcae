// The Dashboard's numbers and lines: the machine's tiles with a trend of up to a day, the loss of the run in progress.

import uPlot from "../vendor/uplot/uPlot.esm.js";
import { colour } from "./colour.js";
import { every, json } from "./live.js";

const machine = document.querySelector("[data-machine]");
const tiles = [...document.querySelectorAll("[data-tile]")];
const charts = new Map(); // element -> { plot, data }
const windows = [...machine.querySelectorAll("[data-window]")];
let range = 86400;
let chosen = false;

function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  let value = size;
  for (; value >= 1024 && place < units.length - 1; place += 1) value /= 1024;
  return place && value < 100 ? `${value.toFixed(1)} ${units[place]}` : `${value.toFixed(0)} ${units[place]}`;
}

const percent = (share) => (share == null ? "–" : `${Math.round(share * 100)} %`);
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const isShare = (tile) => tile.dataset.full === "1";

// --- drawing --------------------------------------------------------------------------------------------------------

function size(element) {
  return { width: Math.max(40, element.clientWidth), height: Math.max(40, element.clientHeight) };
}

function draw(element, data, options) {
  charts.get(element)?.plot.destroy();
  element.replaceChildren();
  const plot = new uPlot({ ...size(element), legend: { show: false }, ...options() }, data, element);
  charts.set(element, { plot, data, options });
}

function show(element, data, options) {
  const known = charts.get(element);
  if (!known) {
    draw(element, data, options);
    return;
  }
  known.data = data;
  known.plot.setData(data);
}

function trendOptions(tile) {
  const note = tile.querySelector("[data-note]");
  return () => ({
    padding: [2, 0, 0, 0],
    axes: [{ show: false }, { show: false }],
    scales: {
      x: { range: () => { const now = Date.now() / 1000; return [now - range, now]; } },
      y: { range: [0, Number(tile.dataset.full) * 1.02] },
    },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
    series: [{}, { stroke: colour("--accent"), fill: colour("--accent-soft"), width: 1.5, spanGaps: false, points: { show: false } }],
    hooks: {
      setCursor: [(plot) => {
        const place = plot.cursor.idx;
        const value = place == null ? null : plot.data[1][place];
        tile.toggleAttribute("data-hovered", value != null);
        if (value == null) {
          if (note.dataset.now) note.textContent = note.dataset.now;
        } else {
          note.textContent = `${isShare(tile) ? percent(value) : bytes(value)} at ${clock(plot.data[0][place])}`;
        }
      }],
    },
  });
}

function lossOptions() {
  const axis = () => ({ stroke: colour("--text-quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" });
  return {
    axes: [{ ...axis(), grid: { show: false } }, { ...axis(), size: 56, values: (_, marks) => marks.map((mark) => Number(mark.toPrecision(3))) }],
    scales: { x: { time: false } },
    cursor: { drag: { x: false, y: false } },
    series: [
      {},
      { stroke: colour("--line"), width: 1, points: { show: false } },
      { stroke: colour("--accent"), width: 2, points: { show: false } },
    ],
  };
}

// --- the machine ----------------------------------------------------------------------------------------------------

function put(key, value, note) {
  const tile = tiles.find((one) => one.dataset.tile === key);
  if (!tile) return;
  tile.querySelector("[data-value]").textContent = value;
  const words = tile.querySelector("[data-note]");
  words.dataset.now = note ?? words.dataset.now ?? words.textContent;
  if (!tile.hasAttribute("data-hovered")) words.textContent = words.dataset.now;
}

async function now() {
  const sample = await json(machine.dataset.machine);
  put("cpu", percent(sample.cpu));
  put("memory", bytes(sample.memory_used));
  put("disk", `${bytes(sample.disk_free)} free`);
  sample.gpus.forEach((gpu, number) => {
    const told = [gpu.temperature == null ? "" : `${Math.round(gpu.temperature)} °C`, gpu.power == null ? "" : `${Math.round(gpu.power)} W`];
    put(`gpu${number}`, percent(gpu.load), told.filter(Boolean).join(", "));
    put(`gpu${number}-memory`, bytes(gpu.memory_used));
  });
}

async function history() {
  const found = await json(`${machine.dataset.history}?seconds=${range}`);
  if (!chosen) choose(narrowest(found.t[0]));
  for (const tile of tiles) {
    const line = found.lines[tile.dataset.line] ?? found.t.map(() => null);
    show(tile.querySelector("[data-chart]"), [found.t, line], trendOptions(tile));
  }
}

// Before anybody chooses, the shortest trend that shows everything there is.
function narrowest(first) {
  const age = Date.now() / 1000 - (first ?? Date.now() / 1000);
  return windows.find((button) => Number(button.dataset.window) >= age) ?? windows.at(-1);
}

function choose(button) {
  chosen = true;
  range = Number(button.dataset.window);
  for (const other of windows) other.setAttribute("aria-pressed", String(other === button));
}

machine.addEventListener("click", (event) => {
  const button = event.target.closest("[data-window]");
  if (!button) return;
  choose(button);
  history().catch(() => {}); // the next round of `every` reports what fails
});

// --- the run in progress --------------------------------------------------------------------------------------------

async function loss() {
  const element = document.querySelector("[data-loss]");
  for (const known of charts.keys()) {
    if (!known.isConnected) {
      charts.get(known).plot.destroy();
      charts.delete(known);
    }
  }
  if (!element) return;
  const found = await json(element.dataset.loss);
  if (!found.steps.length || !element.isConnected) return;
  const raw = found.lines.loss ?? [];
  show(element, [found.steps, raw, found.lines.loss_avg ?? raw], lossOptions);
}

every(2, now);
every(10, history);
every(3, loss);

new ResizeObserver(() => {
  for (const [element, { plot }] of charts) plot.setSize(size(element));
}).observe(document.getElementById("main"));
document.addEventListener("pilot:theme", () => {
  for (const [element, { data, options }] of [...charts]) draw(element, data, options);
});
