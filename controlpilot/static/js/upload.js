// Uploading datasets: files and folders are dropped or chosen, sent with tus (tus-js-client) four at a time, continued
// after any cut, and put in place by the server when all are here. The same files under the same name go on where an
// earlier upload stopped: the server says what it has, and nothing is sent twice.

import { showProblem } from "./problems.js";

const area = document.getElementById("upload");
const api = area.dataset.api;
const endings = new Set(area.dataset.endings.split(" "));
const form = document.getElementById("upload-form");
const nameField = document.getElementById("upload-name");
const addBox = document.getElementById("upload-add");
const problem = document.getElementById("upload-problem");
const transfers = document.getElementById("transfers");
const AT_ONCE = 4;
const CHUNK = 8 * 1024 * 1024; // what a cut loses at most; below the body limits of the usual proxies
let chosen = []; // {path, file}
let named = false;

const size = (bytes) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (bytes >= 1024 && place < units.length - 1) { bytes /= 1024; place += 1; }
  return `${place && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[place]}`;
};
const ending = (path) => path.slice(path.lastIndexOf(".")).toLowerCase();
const hidden = (path) => path.split("/").some((part) => part.startsWith(".") || part === "__MACOSX" || part === "Thumbs.db");

// --- choosing -------------------------------------------------------------------------------------------------------

function take(files, folder = "") {
  const known = new Set(chosen.map((one) => one.path));
  const skipped = [];
  for (const { path, file } of files) {
    if (hidden(path)) continue;
    if (!endings.has(ending(path))) skipped.push(path);
    else if (!known.has(path)) chosen.push({ path, file });
  }
  if (!named && !nameField.value) {
    const top = folder || (chosen.length === 1 ? chosen[0].path.replace(/\.[^.]*$/, "") : "");
    nameField.value = top.replace(/[^\p{L}\p{N}_ .()+-]/gu, "_").replace(/^[^\p{L}\p{N}_]+/u, "").slice(0, 100);
  }
  const total = chosen.reduce((sum, one) => sum + one.file.size, 0);
  const left = skipped.length ? `; ${skipped.length} left out (${skipped.slice(0, 3).join(", ")}${skipped.length > 3 ? " ..." : ""})` : "";
  document.getElementById("upload-words").textContent = `${chosen.length} files, ${size(total)}${left}`;
  form.hidden = chosen.length === 0 && !skipped.length;
  if (!form.hidden) nameField.focus();
}

async function walk(entry, path = "") {
  if (entry.isFile) {
    const file = await new Promise((good, bad) => entry.file(good, bad));
    return [{ path: path + entry.name, file }];
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) { // a reader gives a hundred at a time, and none when it is done
    const some = await new Promise((good, bad) => reader.readEntries(good, bad));
    if (!some.length) return found;
    for (const one of some) found.push(...await walk(one, `${path}${entry.name}/`));
  }
}

document.addEventListener("dragover", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  area.classList.add("is-dropping");
});
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) area.classList.remove("is-dropping"); });
document.addEventListener("drop", async (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  area.classList.remove("is-dropping");
  area.scrollIntoView({ block: "center" });
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = [];
  for (const entry of entries) found.push(...await walk(entry));
  take(found, entries.length === 1 && entries[0].isDirectory ? entries[0].name : "");
});
for (const id of ["pick-files", "pick-folder"]) {
  document.getElementById(id).addEventListener("change", (event) => {
    const files = [...event.target.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
    const folder = files[0]?.path.includes("/") ? files[0].path.split("/")[0] : "";
    take(files, folder);
    event.target.value = "";
  });
}
nameField.addEventListener("input", () => { named = nameField.value !== ""; });
document.getElementById("upload-clear").addEventListener("click", () => {
  chosen = [];
  named = false;
  nameField.value = "";
  form.hidden = true;
});

// --- sending --------------------------------------------------------------------------------------------------------

async function call(method, url, body) {
  const answer = await fetch(url, {
    method,
    headers: body ? { "Content-Type": "application/json" } : {},
    body: body ? JSON.stringify(body) : undefined,
  });
  if (answer.status === 401) location.reload();
  if (answer.status === 204) return null;
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error("refused"), { refusal: value.error });
  return value;
}

function row(name) {
  const place = document.createElement("div");
  place.className = "progress";
  const words = document.createElement("div");
  words.className = "progress-words";
  const [title, text] = [document.createElement("strong"), document.createElement("span")];
  title.textContent = name;
  text.className = "quiet";
  const stop = document.createElement("button");
  stop.type = "button";
  stop.className = "button spread";
  stop.textContent = "Pause";
  words.append(title, text, stop);
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", `Upload of ${name}`);
  place.append(words, bar);
  transfers.append(place);
  return { place, text, stop, bar };
}

async function earlier(name, add, files) {
  // An unfinished upload of the same files goes on.
  const { uploads } = await call("GET", api);
  for (const one of uploads) {
    if (one.dataset !== name || one.add !== add || one.files !== files.length || one.state === "done") continue;
    const full = await call("GET", `${api}/${one.id}/files`);
    const mine = new Map(files.map((file) => [file.path, file.file.size]));
    if (full.files.every((file) => mine.get(file.path) === file.size)) return full;
  }
  return null;
}

async function transfer(name, add, files) {
  const view = row(name);
  let upload = await earlier(name, add, files);
  if (!upload) {
    await call("POST", api, {
      dataset: name, add, files: files.map(({ path, file }) => ({ path, size: file.size })),
    }).then(async (made) => { upload = await call("GET", `${api}/${made.id}/files`); });
  }
  const byPath = new Map(files.map((one) => [one.path, one.file]));
  const waiting = upload.files.filter((one) => one.offset < one.size);
  const total = upload.files.reduce((sum, one) => sum + one.size, 0);
  const sent = new Map(upload.files.map((one) => [one.number, one.offset]));
  const began = Date.now();
  const before = [...sent.values()].reduce((sum, one) => sum + one, 0);
  let paused = false;
  const running = new Set();
  const show = () => {
    const here = [...sent.values()].reduce((sum, one) => sum + one, 0);
    const rate = (here - before) / Math.max(0.5, (Date.now() - began) / 1000);
    const left = rate > 0 ? Math.round((total - here) / rate) : null;
    view.bar.max = total || 1;
    view.bar.value = here;
    const time = left === null || here >= total ? "" : `, ${left < 90 ? `${left} s` : `${Math.round(left / 60)} min`} left`;
    view.text.textContent = paused
      ? `paused at ${size(here)} of ${size(total)}`
      : `${size(here)} of ${size(total)}, ${size(rate)}/s${time}`;
  };
  let wake = () => {};
  view.stop.addEventListener("click", () => {
    paused = !paused;
    view.stop.textContent = paused ? "Go on" : "Pause";
    for (const one of running) (paused ? one.abort() : one.start());
    show();
    wake();
  });
  show();
  const one = (part) => new Promise((good, bad) => {
    const send = new tus.Upload(byPath.get(part.path), {
      uploadUrl: `${api}/${upload.id}/files/${part.number}`,
      chunkSize: CHUNK,
      retryDelays: [500, 1000, 3000, 5000, 10000, 20000, 30000],
      storeFingerprintForResuming: false,
      onProgress: (here) => { sent.set(part.number, here); show(); },
      onSuccess: () => { sent.set(part.number, part.size); running.delete(send); show(); good(); },
      onError: (error) => { running.delete(send); bad(error); },
    });
    running.add(send);
    if (!paused) send.start();
  });
  const workers = Array.from({ length: AT_ONCE }, async () => {
    while (waiting.length) {
      while (paused) await new Promise((good) => { wake = good; });
      const part = waiting.shift();
      if (part) await one(part);
    }
  });
  await Promise.all(workers);
  view.stop.remove();
  view.text.textContent = "checking";
  let state = await call("POST", `${api}/${upload.id}/finish`);
  while (state.state === "checking") {
    await new Promise((good) => setTimeout(good, 1000));
    state = await call("GET", `${api}/${upload.id}`);
  }
  if (state.state !== "done") {
    throw Object.assign(new Error("failed"), {
      refusal: { where: name, given: state.reason, allowed: "", remedy: "Nothing was changed. Correct the files and upload again." },
    });
  }
  view.text.textContent = `done, ${files.length} files`;
  view.bar.max = view.bar.value = 1;
  const link = document.createElement("a");
  link.href = area.dataset.dataset + encodeURIComponent(name);
  link.textContent = "Open the dataset";
  view.text.after(link);
  await cards();
}

async function cards() {
  const place = document.getElementById("cards");
  const answer = await fetch(area.dataset.cards);
  if (!answer.ok) return;
  place.innerHTML = await answer.text();
  const mark = place.querySelector("[data-again]");
  if (mark) setTimeout(cards, Number(mark.dataset.again));
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const files = chosen;
  const [name, add] = [nameField.value, addBox.checked];
  document.getElementById("upload-clear").click();
  problem.replaceChildren();
  try {
    await transfer(name, add, files);
  } catch (error) {
    transfers.lastElementChild?.remove();
    showProblem(error.refusal ?? {
      where: "Upload", given: error.message, allowed: "",
      remedy: "Choose the same files under the same name again: it goes on where it stopped.",
    }, problem);
    chosen = files;
    take([]);
    nameField.value = name;
    addBox.checked = add;
  }
});

document.addEventListener("click", async (event) => {
  const ident = event.target.closest("[data-cancel]")?.dataset.cancel;
  if (!ident) return;
  try {
    await call("DELETE", `${api}/${ident}`);
    event.target.closest("[data-upload]").remove();
  } catch (error) {
    showProblem(error.refusal ?? { where: "Upload", given: error.message, allowed: "", remedy: "Try again." }, problem);
  }
});

if (document.querySelector("#cards [data-again]")) setTimeout(cards, 1200);
