// One dataset: captions are saved where they are edited, thumbnails arrive, pages change without a reload.
//   Ctrl+Enter saves and goes to the next caption, Escape brings the text back that was there; leaving a changed
//   caption saves it. Without this module each caption has its own form and button.

import { showProblem } from "./problems.js";

const grid = document.getElementById("grid");
const report = document.getElementById("report");
const timers = new Map();

function again(part, url) {
  clearTimeout(timers.get(part));
  const mark = part?.querySelector("[data-again]");
  if (mark) timers.set(part, setTimeout(() => refresh(part, url()), Number(mark.dataset.again)));
}

const gridUrl = () => grid.dataset.url + location.search;
const reportUrl = () => report.dataset.url;

async function refresh(part, url) {
  const editing = part.contains(document.activeElement) && document.activeElement.tagName === "TEXTAREA";
  const unsaved = part.querySelector(".is-changed");
  if (document.hidden || editing || unsaved) {
    timers.set(part, setTimeout(() => refresh(part, url), 1500));
    return;
  }
  const answer = await fetch(url).catch(() => null);
  if (answer?.status === 401) location.reload();
  if (answer?.ok) part.innerHTML = await answer.text();
  again(part, part === grid ? gridUrl : reportUrl);
}

const textOf = (form) => form.querySelector("textarea");
const wasOf = (form) => form.querySelector("input[name=was]");
const isChanged = (form) => textOf(form).value.trim() !== wasOf(form).value.trim();

async function post(form, url, extra = {}) {
  const body = new URLSearchParams(new FormData(form));
  for (const [key, value] of Object.entries(extra)) body.set(key, value);
  const answer = await fetch(url, { method: "POST", body, headers: { "X-Fragment": "1" } }).catch(() => null);
  if (answer?.ok) return answer.text();
  const { error } = answer ? await answer.json() : {
    error: { where: "Connection", given: "the panel did not answer", allowed: "", remedy: "Try again in a moment." },
  };
  showProblem(error, form);
  form.querySelector("[data-said]").textContent = "not saved";
  return null;
}

async function save(form) {
  if (!isChanged(form) || form.dataset.busy) return;
  form.dataset.busy = "1";
  const sent = textOf(form).value;
  form.querySelector("[data-said]").textContent = "saving";
  const html = await post(form, form.action);
  delete form.dataset.busy;
  if (html === null) return;
  const place = form.closest(".picture");
  const focused = place.contains(document.activeElement);
  wasOf(form).value = sent;
  // Typed on meanwhile: what was sent is saved, the rest is not. (A field that leaves the page loses the focus, and
  // must not look changed then.)
  if (textOf(form).value !== sent) return;
  const file = place.dataset.file;
  place.outerHTML = html;
  if (focused) textOf(cardOf(file)).focus();
}

const cardOf = (file) => [...grid.querySelectorAll(".picture")].find((one) => one.dataset.file === file);

if (grid) {
  grid.addEventListener("input", (event) => {
    const form = event.target.closest(".caption");
    form?.classList.toggle("is-changed", isChanged(form));
    if (form) form.querySelector("[data-said]").textContent = "";
  });
  grid.addEventListener("focusout", (event) => {
    const form = event.target.closest(".caption");
    if (form && event.target.tagName === "TEXTAREA" && !form.contains(event.relatedTarget)) save(form);
  });
  grid.addEventListener("keydown", async (event) => {
    if (event.target.tagName !== "TEXTAREA") return;
    const form = event.target.closest(".caption");
    if (event.key === "Escape") {
      textOf(form).value = wasOf(form).value;
      form.classList.remove("is-changed");
    } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      const next = form.closest(".picture").nextElementSibling;
      const file = next?.dataset.file;
      await save(form);
      if (file) {
        const text = textOf(cardOf(file));
        text.focus();
        text.scrollIntoView({ block: "nearest" });
      }
    }
  });
  grid.addEventListener("submit", async (event) => {
    const form = event.target.closest(".caption");
    if (!form || event.submitter?.hasAttribute("data-remove")) return;
    event.preventDefault();
    if (!event.submitter?.hasAttribute("data-undo")) {
      save(form);
      return;
    }
    const place = form.closest(".picture");
    const name = decodeURIComponent(location.pathname.split("/").at(-1));
    const html = await post(form, event.submitter.formAction, { name, file: place.dataset.file });
    if (html !== null) place.outerHTML = html;
  });
  grid.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-page]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.pushState(null, "", link.href);
    await refresh(grid, gridUrl());
    document.getElementById("filter").scrollIntoView({ block: "start" });
    grid.querySelector("textarea")?.focus({ preventScroll: true });
  });
  window.addEventListener("popstate", () => refresh(grid, gridUrl()));
  window.addEventListener("beforeunload", (event) => {
    if (grid.querySelector(".is-changed")) event.preventDefault();
  });
  again(grid, gridUrl);
}
if (report) again(report, reportUrl);
