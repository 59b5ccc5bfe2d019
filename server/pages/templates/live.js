// A page that changes is fetched anew every few seconds, and what has changed is put in
// place: not while its reader is elsewhere, has selected text or works with the keyboard
// in what would be replaced, and not once it is paused. Without this script there is a
// link that refreshes.
"use strict";
(() => {
  const pause = 5000;
  let paused = false, asking = false;
  const button = document.createElement("button");
  button.type = "button";
  button.className = "pause";
  const label = () => {
    button.textContent = paused ? "Go on refreshing" : "Pause refreshing";
    button.setAttribute("aria-pressed", String(paused));
  };
  button.addEventListener("click", () => { paused = !paused; label(); });
  label();
  document.querySelector("footer").append(button);

  const busy = () => {
    const selection = document.getSelection();
    const focus = document.activeElement;
    return paused || document.hidden || (selection && !selection.isCollapsed) ||
      (focus && focus.closest("main") && focus.id !== "content");
  };
  const replace = (fresh, selector) => {
    const now = document.querySelector(selector), then = fresh.querySelector(selector);
    if (now.innerHTML !== then.innerHTML) now.innerHTML = then.innerHTML;
  };
  const scrolled = () => new Map([...document.querySelectorAll(".scroll")].map((e) =>
    [e.getAttribute("aria-labelledby"), e.scrollLeft]));
  setInterval(async () => {
    if (busy() || asking) return;
    asking = true;
    let response, text;
    try {
      response = await fetch(location.href, { redirect: "error" });
      text = await response.text();
    } catch {
      return; // the node is away for a moment, or for good: the page says when it was made
    } finally {
      asking = false;
    }
    if (response.status === 403) location.reload();
    if (!response.ok || busy()) return;
    const fresh = new DOMParser().parseFromString(text, "text/html");
    const before = scrolled();
    replace(fresh, "main");
    replace(fresh, "footer p");
    for (const e of document.querySelectorAll(".scroll")) {
      e.scrollLeft = before.get(e.getAttribute("aria-labelledby")) || 0;
    }
  }, pause);
})();
