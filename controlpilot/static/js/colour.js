// The colours of css/tokens.css as values that a canvas understands: resolved for the theme that holds now.

const probe = document.createElement("span");
probe.hidden = true;
document.body.append(probe);

export function colour(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}
