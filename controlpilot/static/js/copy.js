// [data-copy="text"]: a click copies the text and says so in the button's own words.
document.addEventListener("click", async (event) => {
  const button = event.target.closest?.("[data-copy]");
  if (!button) return;
  const word = button.querySelector("span") ?? button;
  const before = word.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    word.textContent = "Copied";
  } catch {
    // Without TLS browsers offer no clipboard: mark the text, so that a person copies it by hand.
    const text = button.parentElement.querySelector("code");
    if (text) getSelection().selectAllChildren(text);
    word.textContent = "Marked: copy it with the keyboard";
  }
  button.title = word.textContent;
  setTimeout(() => {
    word.textContent = before;
    button.title = before;
  }, 2500);
});
