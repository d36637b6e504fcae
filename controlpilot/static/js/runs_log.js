// A log that is read a window at a time: follows its end, goes back towards its beginning, and is searched on the server.
// Nothing here holds more than LINES lines.

import { every, json } from "./live.js";

const LINES = 5000;
const root = document.querySelector("[data-log-reader]");
const frame = root.querySelector("[data-scroll]");
const lines = root.querySelector("[data-lines]");
const partial = root.querySelector("[data-partial]");
const older = root.querySelector("[data-older]");
const follow = root.querySelector("[data-follow]");
const found = root.querySelector("[data-found]");
const words = root.querySelector("[data-log-words]");
let { start, end } = root.dataset;
let live = true; // false while lines around a match are shown instead of the end

const url = (query) => `${root.dataset.url}?${new URLSearchParams(query)}`;
const text = (list) => list.map((line) => `${line}\n`).join("");
const toEnd = () => { if (follow.checked) frame.scrollTop = frame.scrollHeight; };

function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  const place = Math.min(3, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** place).toFixed(1)} ${["B", "KiB", "MiB", "GiB"][place]}`;
}

function trim() {
  const all = lines.textContent.split("\n");
  if (all.length <= LINES) return;
  lines.textContent = all.slice(-LINES).join("\n");
  older.hidden = true; // what was cut off at the top has no place any more: loading the page anew gives it back
}

async function next() {
  if (!live) return;
  const part = await json(url({ after: end }));
  end = part.end;
  words.textContent = size(part.size);
  if (part.size) root.querySelector("[data-empty]")?.remove();
  partial.textContent = part.partial;
  if (part.lines.length) {
    lines.append(text(part.lines));
    if (follow.checked) trim();
  }
  if (part.lines.length || part.partial) toEnd();
}

async function back() {
  older.disabled = true;
  try {
    const part = await json(url({ before: start }));
    const height = frame.scrollHeight;
    start = part.start;
    lines.prepend(text(part.lines));
    frame.scrollTop += frame.scrollHeight - height;
    older.hidden = !part.more_before;
  } finally {
    older.disabled = false;
  }
}

async function around(at) {
  live = false;
  follow.checked = false;
  const [above, below] = await Promise.all([json(url({ before: at })), json(url({ after: at }))]);
  const mark = document.createElement("mark");
  mark.textContent = text(below.lines.slice(0, 1));
  lines.replaceChildren(text(above.lines), mark, text(below.lines.slice(1)));
  partial.textContent = "";
  start = above.start;
  older.hidden = !above.more_before;
  frame.focus({ preventScroll: true });
  mark.scrollIntoView({ block: "center" });
}

async function search(needle, from) {
  const query = new URLSearchParams({ text: needle });
  if (from) query.set("before", from);
  const answer = await json(`${root.dataset.searchUrl}?${query}`);
  if (!from) found.replaceChildren();
  found.querySelector("[data-further]")?.remove();
  for (const match of answer.matches) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "match mono";
    button.textContent = match.line;
    button.addEventListener("click", () => around(match.at));
    found.append(button);
  }
  const further = document.createElement("p");
  further.className = "row close small quiet";
  further.dataset.further = "";
  const count = found.querySelectorAll(".match").length;
  further.textContent = `${count} ${count === 1 ? "line" : "lines"} with “${needle}”, the newest first. `;
  if (answer.next) {
    const more = document.createElement("button");
    more.type = "button";
    more.className = "button plain";
    more.textContent = "Search further back";
    more.addEventListener("click", () => search(needle, answer.next));
    further.append(more);
  }
  found.append(further);
  found.hidden = false;
}

root.querySelector("[data-log-search]").addEventListener("submit", (event) => {
  event.preventDefault();
  const needle = new FormData(event.target).get("text").trim();
  if (needle) search(needle);
  else found.hidden = true;
});
older.addEventListener("click", back);
follow.addEventListener("change", () => {
  if (!follow.checked) return;
  if (live) toEnd();
  else location.reload(); // from around a match back to the end
});
frame.addEventListener("scroll", () => {
  // Whoever scrolls up reads; whoever is at the end follows.
  const atEnd = frame.scrollHeight - frame.scrollTop - frame.clientHeight < 24;
  if (!atEnd && follow.checked) follow.checked = false;
  else if (atEnd && live) follow.checked = true;
  if (frame.scrollTop < 40 && !older.hidden && !older.disabled && !follow.checked) back();
}, { passive: true });

toEnd();
every(2, next);
