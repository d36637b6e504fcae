// The theme: the system's, or light or dark as chosen by a [data-theme-switch] button and kept in localStorage.
// Loaded before the page is drawn (not a module), so that nothing flashes.
(() => {
  const order = ["system", "light", "dark"];
  const read = () => {
    try {
      const kept = localStorage.getItem("pilot-theme");
      return order.includes(kept) ? kept : "system";
    } catch {
      return "system"; // storage is switched off: the choice lasts for this page
    }
  };
  let theme = read();

  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    for (const word of document.querySelectorAll("[data-theme-word]")) word.textContent = `Theme: ${theme}`;
    document.dispatchEvent(new CustomEvent("pilot:theme")); // charts take their colours anew
  };

  show();
  document.addEventListener("DOMContentLoaded", show);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("[data-theme-switch]")) return;
    theme = order[(order.indexOf(theme) + 1) % order.length];
    try {
      localStorage.setItem("pilot-theme", theme);
    } catch {
      // as above
    }
    show();
  });
})();
