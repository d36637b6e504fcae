// A sample, large: left and right go through the prompts of a step, up and down through the steps of a prompt.
// Every [data-sample] on the page takes part, also those that come with a later poll.

const box = document.querySelector("[data-lightbox]");
box.tabIndex = -1;
let at = null; // {step, prompt}, so that a poll that draws the page anew changes nothing
let opener = null;

const all = () => [...document.querySelectorAll("[data-sample]")].map((link) => ({
  link, step: Number(link.dataset.step), prompt: Number(link.dataset.prompt),
}));

function show(sample) {
  at = { step: sample.step, prompt: sample.prompt };
  opener = sample.link;
  const picture = box.querySelector("[data-picture]");
  picture.src = sample.link.href;
  picture.alt = sample.link.querySelector("img").alt;
  box.querySelector("[data-caption]").textContent = sample.link.dataset.caption;
  box.querySelector("[data-facts]").textContent = sample.link.dataset.facts;
  box.querySelector("[data-download]").href = sample.link.href;
  for (const button of box.querySelectorAll("[data-go]")) button.disabled = !towards(button.dataset.go);
  if (!box.open) box.showModal();
  // A button that is disabled while it has the focus would keep the arrow keys to itself.
  else if (document.activeElement.disabled || !box.contains(document.activeElement)) box.focus();
}

function towards(way) {
  const found = all();
  const nearest = (list, key, ascending) => list.sort((a, b) => (ascending ? a[key] - b[key] : b[key] - a[key]))[0];
  if (way === "left" || way === "right") {
    const row = found.filter((one) => one.step === at.step);
    return way === "left"
      ? nearest(row.filter((one) => one.prompt < at.prompt), "prompt", false)
      : nearest(row.filter((one) => one.prompt > at.prompt), "prompt", true);
  }
  const column = found.filter((one) => one.prompt === at.prompt);
  return way === "up"
    ? nearest(column.filter((one) => one.step > at.step), "step", true)
    : nearest(column.filter((one) => one.step < at.step), "step", false);
}

function go(way) {
  const next = towards(way);
  if (next) show(next);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("[data-sample]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    show({ link, step: Number(link.dataset.step), prompt: Number(link.dataset.prompt) });
  }
});

box.addEventListener("click", (event) => {
  const button = event.target.closest("[data-go]");
  if (button) go(button.dataset.go);
  else if (event.target === box || event.target.closest("[data-close]")) box.close();
});

box.addEventListener("keydown", (event) => {
  const way = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" }[event.key];
  if (!way) return;
  event.preventDefault();
  go(way);
});

box.addEventListener("close", () => {
  const { step, prompt } = at;
  const link = document.querySelector(`[data-sample][data-step="${step}"][data-prompt="${prompt}"]`) ?? opener;
  link?.focus();
});
