// Refusals of the server, shown where they must be read. An htmx request (hx-post and the like, not a poll of live.js)
// that is answered with a status of 400 or more:
//   - as HTML: swapped like any answer, so a form comes back with its messages;
//   - as JSON in the panel's error shape: shown as a notice at the top of the nearest [data-problem], else in #problem.
// The notice stays until it is closed or the next request from there succeeds; what else is in the place is left alone.

const placeOf = (near) => near.closest?.("[data-problem]") ?? document.getElementById("problem");

function clear(place) {
  for (const notice of place.querySelectorAll(":scope > [data-problem-notice]")) notice.remove();
}

function show(place, error) {
  const notice = document.createElement("div");
  notice.className = "notice is-bad";
  notice.dataset.problemNotice = "";
  notice.setAttribute("role", "alert");
  const text = document.createElement("div");
  for (const [kind, words] of [
    ["notice-title", `${error.where}: ${error.given}`],
    ["notice-body", error.allowed ? `Allowed: ${error.allowed}` : ""],
    ["notice-remedy", error.remedy],
  ]) {
    if (!words) continue;
    const line = document.createElement("p");
    line.className = kind;
    line.textContent = words;
    text.append(line);
  }
  const close = document.createElement("button");
  close.type = "button";
  close.className = "button plain";
  close.textContent = "Close";
  close.addEventListener("click", () => notice.remove());
  const mark = document.getElementById("connection").querySelector("svg").cloneNode(true);
  notice.append(mark, text, close);
  clear(place);
  place.prepend(notice);
  notice.scrollIntoView({ block: "nearest" });
}

export function showProblem(error, near = document.body) {
  show(placeOf(near), error);
}

document.addEventListener("htmx:before:response", async (event) => {
  const { sourceElement, response } = event.detail.ctx;
  if (!sourceElement || sourceElement.matches("[data-live]")) return;
  if (response.status < 400) {
    clear(placeOf(sourceElement));
    return;
  }
  if (!(response.headers.get("Content-Type") ?? "").includes("json")) return;
  event.preventDefault();
  const { error } = await response.raw.json();
  showProblem(error, sourceElement);
});

document.addEventListener("htmx:error", (event) => {
  const element = event.detail?.ctx?.sourceElement;
  if (!element || element.matches("[data-live]")) return;
  showProblem({
    where: "Connection", given: "the panel did not answer", allowed: "",
    remedy: "Nothing may have been changed. Wait a moment and try again.",
  }, element);
});
