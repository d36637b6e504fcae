// The form of a new test: how many pictures it asks for, and finding a LoRA in a long list.

const form = document.getElementById("test");

function count() {
  const parts = (name) => form.elements[name].value.split(/[\s,;]+/).filter(Boolean);
  const prompts = form.elements.prompts.value.split("\n").filter((line) => line.trim()).length;
  const loras = form.querySelectorAll('input[name="loras"]:checked').length;
  const base = form.elements.with_base.checked || !loras ? 1 : 0;
  const columns = base + loras * (new Set(parts("strengths")).size || 1);
  const pictures = prompts * (new Set(parts("seeds")).size || 1) * columns;
  const words = pictures ? `${pictures} picture${pictures === 1 ? "" : "s"} in ${columns} column${columns === 1 ? "" : "s"}` : "";
  document.getElementById("test-count").textContent = words;
}

function find(event) {
  const wanted = event.target.value.toLowerCase();
  for (const choice of form.querySelectorAll(".choices .check")) {
    const chosen = choice.querySelector("input").checked;
    choice.hidden = !chosen && !choice.textContent.toLowerCase().includes(wanted);
  }
}

if (form) {
  form.addEventListener("input", count);
  form.querySelector("[data-find]")?.addEventListener("input", find);
  count();
}
