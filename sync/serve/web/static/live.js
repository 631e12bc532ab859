// Keeps the live part of a run's page up to date. The server renders it; this only puts it in place.
"use strict";

(() => {
  const live = document.querySelector("[data-events]");
  const note = document.getElementById("live-note");
  if (!live || !note) return;
  const SILENT_MS = 30000, AGAIN_MS = 10000;
  let source = null, heard = 0, isOver = false, hasStopped = false, later = 0;

  const say = (text) => { if (note.textContent !== text) note.textContent = text; };

  // Takes over what the reader has opened, so that it stays open.
  const keepOpen = (former, next) => {
    const nameOf = (each) => each.id || each.querySelector("summary").textContent;
    const known = new Map([...former.querySelectorAll("details")].map((each) => [nameOf(each), each.open]));
    for (const each of next.querySelectorAll("details")) {
      if (known.has(nameOf(each))) each.open = known.get(nameOf(each));
    }
  };

  const isSelected = (part) => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && part.contains(selection.anchorNode);
  };

  const show = (html) => {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const next of fresh.querySelectorAll("[data-live]")) {
      const former = document.getElementById(next.id);
      if (!former) continue;
      keepOpen(former, next);
      if (former.isEqualNode(next) || (isSelected(former) && !isOver)) continue;
      const focused = former.contains(document.activeElement) ? document.activeElement.id : "";
      former.replaceWith(document.adoptNode(next));
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    }
    const title = document.querySelector("[data-title]");
    if (title) document.title = title.dataset.title;
  };

  const close = () => {
    clearTimeout(later);
    if (source) source.close();
    source = null;
  };

  const open = () => {
    close();
    if (isOver || document.hidden) return;
    heard = Date.now();
    source = new EventSource(live.dataset.events);
    const hear = () => { heard = Date.now(); hasStopped = false; say("Live"); };
    source.addEventListener("run", (event) => { hear(); show(event.data); });
    source.addEventListener("beat", hear);
    source.addEventListener("over", (event) => { isOver = true; close(); show(event.data); say(""); });
    source.addEventListener("stop", () => { hasStopped = true; });
    source.onerror = () => {
      say(hasStopped ? "Not live: the server was stopped" : "Not live: the server does not answer");
      // The browser itself tries again unless the server has refused.
      if (source && source.readyState === EventSource.CLOSED) later = setTimeout(open, AGAIN_MS);
    };
  };

  setInterval(() => {
    if (source && Date.now() - heard > SILENT_MS) {
      say(`No news for ${Math.round((Date.now() - heard) / 1000)} s: the server or its run store does not answer`);
    }
  }, 1000);
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", (event) => { if (event.persisted) open(); });
  open();
})();
