// Keeps <time datetime="..." data-ago> true ("3 min ago") and puts the exact time in the reader's own zone on hover.
// A [data-until="unix seconds"] counts down ("in 2 min").

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function ago(seconds) {
  const age = Math.abs(seconds);
  if (age < 5) return "just now";
  const [size, word] = UNITS.find(([unit]) => age >= unit);
  const words = `${Math.floor(age / size)} ${word}`;
  return seconds > 0 ? `${words} ago` : `in ${words}`;
}

function refresh() {
  const now = Date.now();
  for (const element of document.querySelectorAll("time[data-ago]")) {
    const moment = Date.parse(element.dateTime);
    const words = ago((now - moment) / 1000);
    if (element.textContent !== words) element.textContent = words;
    const exact = new Date(moment).toLocaleString();
    if (element.title !== exact) element.title = exact;
  }
  for (const element of document.querySelectorAll("[data-until]")) {
    element.textContent = ago(now / 1000 - Number(element.dataset.until));
  }
}

refresh();
setInterval(refresh, 1000);
document.addEventListener("htmx:after:swap", refresh);
