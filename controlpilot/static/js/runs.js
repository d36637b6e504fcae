// The list of runs and the queue: filters that answer at once, order by drag or keys; small things of one run's pages.

const place = (item) => [...item.parentElement.children].indexOf(item) + 1;

// --- filters: every change asks for the list; without scripts the form does it -----------------------------------------

const filters = document.querySelector("[data-filters]");
const history_ = document.getElementById("history");
let typing = 0;

function show() {
  const query = new URLSearchParams(new FormData(filters));
  for (const [key, value] of [...query]) if (!value) query.delete(key);
  window.history.replaceState(null, "", `?${query}`);
  query.set("part", "list");
  const url = `${filters.action.split("?")[0]}?${query}`;
  history_.setAttribute("hx-get", url);
  htmx.ajax("GET", url, { target: "#history", swap: "innerMorph" });
}

if (filters) {
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    const kind = event.submitter?.value;
    if (event.submitter?.name === "show") {
      filters.elements.namedItem("show")[0].value = kind;
      for (const button of filters.querySelectorAll("button[name=show]")) {
        button.setAttribute("aria-pressed", String(button === event.submitter));
      }
    }
    show();
  });
  filters.addEventListener("input", (event) => {
    if (event.target.type === "hidden") return;
    clearTimeout(typing);
    typing = setTimeout(show, event.target.type === "search" ? 250 : 0);
  });
}

// The numbers beside the filters are those of the list that came last.
document.addEventListener("htmx:after:swap", () => {
  const told = history_?.querySelector("[data-counts]");
  if (!told) return;
  for (const [kind, count] of Object.entries(JSON.parse(told.dataset.counts))) {
    const number = filters.querySelector(`[data-count="${kind}"]`);
    if (number && number.textContent !== String(count)) number.textContent = count;
  }
});

// --- the queue's order ----------------------------------------------------------------------------------------------------

let dragged = null;
let before = 0;

function send(list, run, to) {
  htmx.ajax("POST", list.dataset.url, { values: { do: "move", run, to }, target: "#queue", swap: "innerMorph" });
}

document.addEventListener("dragstart", (event) => {
  dragged = event.target.closest?.("[data-order] > li") ?? null;
  if (!dragged) return;
  before = place(dragged);
  dragged.classList.add("is-dragged");
  dragged.closest("[data-live]")?.removeAttribute("data-live"); // a poll in between would put it back
  event.dataTransfer.effectAllowed = "move";
});

document.addEventListener("dragover", (event) => {
  const over = dragged && event.target.closest?.("[data-order] > li");
  if (!over || over === dragged || over.parentElement !== dragged.parentElement) return;
  event.preventDefault();
  const { top, height } = over.getBoundingClientRect();
  over[event.clientY < top + height / 2 ? "before" : "after"](dragged);
});

document.addEventListener("drop", (event) => { if (dragged) event.preventDefault(); });

document.addEventListener("dragend", () => {
  if (!dragged) return;
  dragged.classList.remove("is-dragged");
  document.getElementById("queue").dataset.live = "2";
  if (place(dragged) !== before) send(dragged.parentElement, dragged.dataset.run, place(dragged));
  dragged = null;
});

document.addEventListener("keydown", (event) => {
  const item = event.target.closest?.("[data-grip]")?.closest("li");
  const count = item?.parentElement.children.length;
  const to = item && {
    ArrowUp: place(item) - 1, ArrowDown: place(item) + 1, Home: 1, End: count,
  }[event.key];
  if (!to || to < 1 || to > count) return;
  event.preventDefault();
  const list = item.parentElement;
  if (to > place(item)) list.children[to - 1].after(item);
  else list.children[to - 1].before(item);
  item.querySelector("[data-grip]").focus();
  send(list, item.dataset.run, to);
});

// --- one run ----------------------------------------------------------------------------------------------------------------

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
  if (event.target.matches("[data-only-chosen]")) {
    for (const row of document.querySelectorAll("tr[data-default]")) row.hidden = event.target.checked;
  }
});

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(event.target) || event.target.closest("a, button:not([disabled])")) menu.open = false;
  }
});

// An open menu stays as it is: what is polled around it waits until it is closed.
document.addEventListener("toggle", (event) => {
  const part = event.target.matches?.("details[data-menu]") && event.target.closest("[hx-get]");
  if (!part) return;
  if (event.target.open) part.removeAttribute("data-live");
  else part.dataset.live = "2";
}, true);

document.addEventListener("keydown", (event) => {
  const menu = event.key === "Escape" && event.target.closest?.("details[data-menu][open]");
  if (!menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
