// Everything works without this script. It keeps a page fresh: parts with the
// attribute data-live and an id are replaced when the server tells of changes.
"use strict";
(() => {
  const parts = () => [...document.querySelectorAll("[data-live][id]")];
  const pause = 2000; // ms between two refreshes at least
  let due = 0, last = 0, busy = false;

  async function refresh() {
    due = 0;
    if (document.hidden || busy || parts().length === 0) return;
    busy = true;
    last = Date.now();
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const old of parts()) {
        const next = fresh.getElementById(old.id);
        if (!next || next.innerHTML === old.innerHTML) continue;
        if (old.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) continue;
        const focused = old.contains(document.activeElement) && document.activeElement.id;
        const open = new Set([...old.querySelectorAll("details[id][open]")].map((d) => d.id));
        const scrolled = new Map([...old.querySelectorAll(".scroll[id]")].map((s) => [s.id, s.scrollLeft]));
        old.replaceChildren(...next.childNodes);
        for (const id of open) document.getElementById(id)?.setAttribute("open", "");
        for (const [id, x] of scrolled) { const s = document.getElementById(id); if (s) s.scrollLeft = x; }
        if (focused) document.getElementById(focused)?.focus();
      }
      document.dispatchEvent(new CustomEvent("refreshed"));
    } catch { /* the server is away; the stream tells when it is back */ } finally { busy = false; }
  }
  function soon() {
    if (due) return;
    due = setTimeout(refresh, Math.max(150, last + pause - Date.now()));
  }
  if (parts().length > 0 && window.EventSource) {
    let source;
    const follow = () => {
      source = new EventSource("/api/v1/events");
      source.addEventListener("change", (e) => {
        const only = document.querySelector("[data-live-job]")?.dataset.liveJob;
        if (!only || String(JSON.parse(e.data).job_id) === only) soon();
      });
      source.addEventListener("open", soon);
    };
    const look = () => {
      if (document.hidden) { source?.close(); source = undefined; } else if (!source) follow();
    };
    document.addEventListener("visibilitychange", look);
    addEventListener("pagehide", () => { source?.close(); source = undefined; });
    addEventListener("pageshow", look);
    look();
  }

  // A form that changes something asks first, if it says what.
  document.addEventListener("submit", (e) => {
    const ask = e.target.dataset.confirm;
    if (ask && !confirm(ask)) e.preventDefault();
  });
})();
