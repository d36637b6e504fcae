// Notifications of the browser: a run that ended while the panel was in the background.
//
// Off until a person presses a [data-notify] button: only that asks for the permission, and the choice is this browser's
// alone. While a window is hidden, live parts rest; this one question, twice a minute, is what was asked for. Its header
// tells the server that nobody looks.

const about = document.getElementById("notify").dataset;
const WANTED = "pilot-notify";
const EVERY = 30_000;
const WORDS = { done: "is done", failed: "failed", stopped: "was stopped" };
let until = null; // the server's time up to which ends are known

const possible = () => "Notification" in window && window.isSecureContext;
const wanted = () => localStorage.getItem(WANTED) === "on" && possible() && Notification.permission === "granted";

function words() {
  if (!possible()) return "This browser shows notifications over https or at localhost only.";
  if (Notification.permission === "denied") return "This browser is set to refuse them; allow them in its settings.";
  return wanted() ? "On in this browser: you see when a run ends while this window is in the background." : "";
}

function refresh() {
  for (const button of document.querySelectorAll("[data-notify]")) {
    button.disabled = !possible() || Notification.permission === "denied";
    button.setAttribute("aria-pressed", String(wanted()));
    button.lastElementChild.textContent = wanted() ? "Turn off in this browser" : "Show in this browser";
  }
  for (const place of document.querySelectorAll("[data-notify-words]")) {
    if (words()) place.textContent = words();
  }
}

async function look() {
  if (!wanted()) return;
  const asked = until === null ? about.endings : `${about.endings}?after=${until}`;
  const answer = await fetch(asked, { headers: { Accept: "application/json", "X-Pilot-Untouched": "86400" } });
  if (!answer.ok) return; // logged out, or the panel restarts: the next look asks for the same time
  const told = await answer.json();
  until = told.until;
  if (!document.hidden) return;
  for (const run of told.runs) {
    const shown = new Notification(`${run.title} ${WORDS[run.status]}`, {
      body: run.status === "done" ? "" : run.reason,
      tag: `${run.name} ${run.ended}`, // one for all windows
    });
    shown.addEventListener("click", () => {
      window.focus();
      location.href = `${about.runs}/${encodeURIComponent(run.name)}`;
    });
  }
}

const trying = () => look().catch(() => {}); // no answer: live parts say so when the window is shown

document.addEventListener("click", async (event) => {
  if (!event.target.closest?.("[data-notify]")) return;
  if (wanted()) localStorage.removeItem(WANTED);
  else if ((await Notification.requestPermission()) === "granted") localStorage.setItem(WANTED, "on");
  refresh();
  trying();
});
// What ended before the window was left is known: seen on the page.
document.addEventListener("visibilitychange", trying);
setInterval(trying, EVERY);
refresh();
trying();
