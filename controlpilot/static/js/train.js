// The wizard: what is typed is kept as a draft and planned anew a moment later; problems appear at their fields.
//   form[data-plan]     its fields are posted there 250 ms after the last change; the answer replaces #plan
//   [data-follow=URL]   read anew after each change; inside it [data-again=MS] asks to be read again after MS
// Without this module the same form works with its buttons.

import { showProblem } from "./problems.js";

const WAIT = 250;
const form = document.getElementById("wizard");
const plan = document.getElementById("plan");
const saved = document.getElementById("saved");
let timer = 0;
let number = 0; // of the newest request: an older answer that comes late is dropped
let leaving = false;

const words = (text) => { if (saved.textContent !== text) saved.textContent = text; };

async function send() {
  clearTimeout(timer);
  timer = 0;
  const mine = ++number;
  try {
    const answer = await fetch(form.dataset.plan, { method: "POST", body: new URLSearchParams(new FormData(form)) });
    if (answer.status === 401) location.reload();
    if (mine !== number) return;
    if (!answer.ok) {
      const { error } = await answer.json();
      showProblem(error, form);
      words("Not kept");
      return;
    }
    const html = await answer.text();
    if (mine !== number) return;
    plan.innerHTML = html;
    words("Kept as a draft");
    settle();
    await follow();
  } catch (error) {
    if (leaving) return;
    words("The panel does not answer: not kept yet, trying again");
    timer = setTimeout(send, 3000);
  }
}

// --- problems and values at their fields ----------------------------------------------------------------------------

function settle() {
  const answer = plan.firstElementChild;
  const problems = new Map(JSON.parse(answer.dataset.problems));
  const values = JSON.parse(answer.dataset.values);
  for (const field of form.querySelectorAll(".setting")) {
    const path = field.dataset.path;
    const input = field.querySelector("input, select, textarea");
    const line = field.querySelector(".problem");
    const problem = problems.get(path) ?? "";
    if (problem) input.setAttribute("aria-invalid", "true");
    else input.removeAttribute("aria-invalid");
    line.hidden = !problem;
    line.querySelector("span").textContent = problem;
    const own = input.value !== "";
    field.classList.toggle("is-set", own);
    const help = `${input.id}-help`;
    input.setAttribute("aria-describedby", problem ? `${help} ${line.id}` : help);
    const [value, source] = values[path] ?? [];
    if (value === undefined) continue;
    field.querySelector(".source").textContent = source;
    if (own) continue;
    if (input.tagName === "SELECT") {
      const shown = { true: "on", false: "off" }[value] ?? value;
      input.querySelector("[data-inherited]").textContent = `${shown} · ${source}`;
    } else {
      input.placeholder = value;
    }
  }
  const start = document.getElementById("start");
  if (start) start.disabled = answer.dataset.state !== "ready";
  if (answer.dataset.state === "measuring" && !timer) timer = setTimeout(send, 1000);
}

async function follow() {
  for (const part of document.querySelectorAll("[data-follow]")) {
    const answer = await fetch(part.dataset.follow);
    if (!answer.ok) continue;
    const html = await answer.text();
    if (part.dataset.html !== html) {
      part.innerHTML = html;
      part.dataset.html = html;
    }
    const again = part.querySelector("[data-again]");
    clearTimeout(part.again);
    if (again && !document.hidden) part.again = setTimeout(follow, Number(again.dataset.again));
  }
}

function changed(wait) {
  words("Keeping …");
  clearTimeout(timer);
  timer = setTimeout(send, wait);
}

form.addEventListener("input", (event) => {
  if (event.target.closest("#find")) return;
  changed(WAIT);
});
form.addEventListener("submit", () => { leaving = true; clearTimeout(timer); });
window.addEventListener("pagehide", () => {
  leaving = true;
  // A change of the last quarter of a second is kept although the page goes.
  if (timer) navigator.sendBeacon(form.dataset.plan, new URLSearchParams(new FormData(form)));
});
// A list of datasets decides which of their settings there are: the page is made anew once the choice is kept.
form.addEventListener("change", async (event) => {
  if (event.target.name !== "datasets") return;
  await send();
  const answer = await fetch(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const [here, there] = [document.getElementById("dataset-settings"), page.getElementById("dataset-settings")];
  if (here && there) here.replaceWith(there);
});

// --- the search of all settings -------------------------------------------------------------------------------------

const find = document.getElementById("find");
if (find) {
  find.hidden = false;
  const [text, own, count] = ["find-text", "find-set", "find-count"].map((id) => document.getElementById(id));
  const opened = new Map();
  const look = () => {
    const parts = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const looking = parts.length > 0 || own.checked;
    let found = 0;
    for (const group of document.querySelectorAll(".group[data-group]")) {
      if (looking && !opened.has(group)) opened.set(group, group.open);
      let here = 0;
      for (const field of group.querySelectorAll(".setting")) {
        const hit = parts.every((part) => field.dataset.words.includes(part))
          && (!own.checked || field.classList.contains("is-set"));
        field.hidden = looking && !hit;
        here += hit;
      }
      group.hidden = looking && here === 0;
      group.open = looking ? here > 0 : opened.get(group) ?? group.open;
      found += here;
    }
    if (!looking) opened.clear();
    count.textContent = looking ? `${found} settings` : "";
  };
  text.addEventListener("input", look);
  own.addEventListener("change", look);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && text.value) { text.value = ""; look(); event.preventDefault(); }
    if (event.key === "Enter") event.preventDefault();
  });
}

// A link to a field opens the section that holds it.
function reveal() {
  const field = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!field) return;
  const group = field.closest("details");
  if (group) group.open = true;
  field.scrollIntoView({ block: "center" });
  field.focus();
}
window.addEventListener("hashchange", reveal);

settle();
for (const part of document.querySelectorAll("[data-follow]")) {
  const again = part.querySelector("[data-again]");
  if (again) part.again = setTimeout(follow, Number(again.dataset.again));
}
reveal();
