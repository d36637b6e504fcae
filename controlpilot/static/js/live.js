// Live parts of a page. An element made with the macro live(url, every=2), which writes
//     hx-get="URL" hx-trigger="poll" hx-swap="innerMorph" data-live="SECONDS"
// gets its content anew: every SECONDS while the window is visible and somebody is there, five times slower after two
// minutes without a key, click or move, never while the window is hidden, and at once when it is shown again.
// A server that has nothing new may answer 204; one that wants a page loaded anew answers with HX-Refresh: true.
// An answer with a status of 400 or more, or none at all, never replaces what is shown: #connection says so, tries wait
// longer and longer (30 s at most), and the notice goes with the first good answer. 401 means logged out: the page is
// loaded anew, which leads to the login.
// Each poll says in X-Pilot-Untouched for how many seconds nobody has touched the window: a window that was left open
// is nobody who looks, and an idle pod may be stopped (pages/pod.py).
//
// For modules: `every(seconds, read)` calls an async function under the same rules (charts use it).
//     const stop = every(5, async () => { ... throw to report a failure ... });

const IDLE_AFTER = 120_000;
const SLOWER = 5;
const LONGEST = 30_000;
const failures = new Map(); // what failed -> how often in a row
let touched = Date.now();

for (const kind of ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"]) {
  document.addEventListener(kind, () => { touched = Date.now(); }, { passive: true });
}

const UNTOUCHED = "X-Pilot-Untouched";
const untouched = () => String(Math.round((Date.now() - touched) / 1000));
const idle = () => Date.now() - touched > IDLE_AFTER;

function gap(seconds, key) {
  const failed = failures.get(key) ?? 0;
  if (failed) return Math.min(LONGEST, 1000 * Math.max(2, seconds) * 2 ** (failed - 1));
  return 1000 * seconds * (idle() ? SLOWER : 1);
}

function report(key, failed) {
  const before = failures.size;
  if (failed) failures.set(key, (failures.get(key) ?? 0) + 1);
  else failures.delete(key);
  const notice = document.getElementById("connection");
  if (!notice || (!before && !failures.size)) return;
  notice.hidden = failures.size === 0;
  if (!failures.size) return;
  const words = notice.querySelector("[data-words]");
  const since = notice.dataset.since || new Date().toLocaleTimeString();
  if (!before) notice.dataset.since = new Date().toLocaleTimeString();
  words.textContent = `No answer from the panel since ${before ? since : notice.dataset.since}. `
    + "What you see is from then; runs go on. Trying again.";
}

// --- elements -------------------------------------------------------------------------------------------------------

const due = new WeakMap(); // element -> when it is asked for next, in ms

function visit() {
  if (document.hidden) return;
  for (const element of document.querySelectorAll("[data-live]")) {
    if (element.closest("[hidden]") || !element.checkVisibility()) continue;
    const seconds = Number(element.dataset.live) || 2;
    const when = due.get(element);
    if (when === undefined) {
      due.set(element, Date.now() + 1000 * seconds); // what the page came with is fresh
    } else if (Date.now() >= when) {
      due.set(element, Date.now() + LONGEST); // until the answer sets it
      htmx.trigger(element, "poll");
    }
  }
}

function settled(element, failed) {
  report(element, failed);
  due.set(element, Date.now() + gap(Number(element.dataset.live) || 2, element));
}

const polled = (event) => {
  const element = event.detail?.ctx?.sourceElement;
  return element?.matches?.("[data-live]") ? element : null;
};

document.addEventListener("htmx:config:request", (event) => {
  if (polled(event)) event.detail.ctx.request.headers[UNTOUCHED] = untouched();
});
document.addEventListener("htmx:before:response", (event) => {
  const element = polled(event);
  const status = event.detail?.ctx?.response?.status ?? 0;
  if (!element) return;
  if (status === 401) location.reload();
  if (status >= 400) {
    event.preventDefault();
    settled(element, true);
  }
});
document.addEventListener("htmx:error", (event) => {
  const element = polled(event);
  if (element) settled(element, true);
});
document.addEventListener("htmx:finally:request", (event) => {
  const element = polled(event);
  const status = event.detail?.ctx?.response?.status ?? 0;
  if (element && status > 0 && status < 400) settled(element, false);
});

setInterval(visit, 250);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  touched = Date.now();
  for (const element of document.querySelectorAll("[data-live]")) due.set(element, 0);
  visit();
});

// An element that left the page can no longer answer: its failures go with it.
setInterval(() => {
  for (const key of failures.keys()) {
    if (key instanceof Element && !key.isConnected) report(key, false);
  }
}, 1000);

// --- modules --------------------------------------------------------------------------------------------------------

export function every(seconds, read) {
  const key = {};
  let next = 0;
  let busy = false;
  const turn = async () => {
    if (document.hidden || busy || Date.now() < next) return;
    busy = true;
    try {
      await read();
      report(key, false);
    } catch (error) {
      if (error?.status === 401) location.reload();
      report(key, true);
    } finally {
      busy = false;
      next = Date.now() + gap(seconds, key);
    }
  };
  const clock = setInterval(turn, 250);
  const shown = () => { if (!document.hidden) next = 0; };
  document.addEventListener("visibilitychange", shown);
  turn();
  return () => {
    clearInterval(clock);
    document.removeEventListener("visibilitychange", shown);
    report(key, false);
  };
}

// fetch for `every`: JSON, or an error that carries the status.
export async function json(url) {
  const answer = await fetch(url, { headers: { Accept: "application/json", [UNTOUCHED]: untouched() } });
  if (!answer.ok) throw Object.assign(new Error(`${url}: ${answer.status}`), { status: answer.status });
  return answer.json();
}
