// Everything works without this script. It keeps a page fresh: parts with the
// attribute data-live and an id are replaced when the server tells of changes, and soon while
// something in them has data-soon.
"use strict";
(() => {
  const parts = () => [...document.querySelectorAll("[data-live][id]")];
  const pause = 2000; // ms between two refreshes at least
  const often = 20000; // and at most: what is not told of by a change shows by then
  const again = 3000; // after one that failed
  const patience = 15000; // for an answer
  let due = 0, last = Date.now(), busy = false, shown = Date.now(); // when what is shown was made

  // Says on top of the page that what it shows is old, and why; undefined: it is not.
  function stale(why) {
    const box = document.getElementById("stale");
    if (!box) return;
    box.hidden = !why;
    if (!why) { shown = Date.now(); return; }
    const s = Math.round((Date.now() - shown) / 1000);
    const age = s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
    const text = `${why}: what is shown is ${age} old.`;
    if (box.textContent === text) return;
    const strong = document.createElement("strong");
    strong.textContent = text;
    box.replaceChildren(strong);
  }

  async function refresh() {
    due = 0;
    if (document.hidden || parts().length === 0) return;
    if (busy) { soon(); return; } // what is under way may be of before the change
    busy = true;
    last = Date.now();
    let failed = "The server does not answer";
    try {
      // By this header the server knows that nobody did anything: an open page keeps nobody logged in.
      const answer = await fetch(location.href, { headers: { Accept: "text/html", "X-Switchyard-Refresh": "1" }, signal: AbortSignal.timeout(patience) });
      if (new URL(answer.url).pathname === "/login") { location.reload(); return; } // the session has ended
      failed = answer.status >= 500 || answer.status === 429 ? `The server answers ${answer.status}` : undefined;
      if (!answer.ok) return;
      failed = "The server's answer is cut off";
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
      failed = undefined;
      document.dispatchEvent(new CustomEvent("refreshed"));
    } catch { /* the server is away */ } finally {
      busy = false;
      stale(failed);
      if (failed) setTimeout(soon, again);
      else if (unfinished()) soon();
    }
  }
  function soon() {
    if (due) return;
    // Not all who look ask at the same moment.
    due = setTimeout(refresh, Math.max(150 + 600 * Math.random(), last + pause - Date.now()));
  }
  const unfinished = () => document.querySelector("[data-live] [data-soon]"); // the server is still at it
  if (unfinished()) soon();
  if (parts().length > 0 && window.EventSource) {
    let source;
    const follow = () => {
      source = new EventSource("/api/v1/events");
      source.addEventListener("change", (e) => {
        const only = document.querySelector("[data-live-job]")?.dataset.liveJob;
        if (!only || String(JSON.parse(e.data).job_id) === only) soon();
      });
      source.addEventListener("open", soon);
      source.addEventListener("error", soon); // perhaps the server is away, which a refresh shows
      source.addEventListener("error", () => { // it was refused: there is no place now, or the session has ended, which a refresh shows
        if (source?.readyState === EventSource.CLOSED) { source = undefined; setTimeout(look, 30000); }
      });
    };
    setInterval(() => { if (Date.now() - last >= often) soon(); }, often / 4);
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

// A form with data-shows="ID" answers as one types: the part of that id is taken
// from the page that the form leads to. The latest question wins.
(() => {
  const address = (form) => {
    const query = new URLSearchParams();
    for (const [k, v] of new FormData(form)) if (v !== "") query.append(k, v);
    const text = query.toString();
    return form.getAttribute("action") + (text && "?" + text);
  };
  document.addEventListener("refreshed", copies);
  copies();
  for (const form of document.querySelectorAll("form[data-shows]")) {
    let timer, asking;
    async function ask() {
      const at = address(form), part = document.getElementById(form.dataset.shows);
      asking?.abort();
      const mine = (asking = new AbortController());
      part.setAttribute("aria-busy", "true");
      try {
        const answer = await fetch(at, { signal: mine.signal, headers: { Accept: "text/html" } });
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        const next = fresh.getElementById(part.id) ?? fresh.querySelector("main [role=alert]");
        if (mine.signal.aborted || !next) return;
        const open = [...part.querySelectorAll("details[id][open]")].map((d) => d.id);
        part.replaceChildren(...(next.id === part.id ? next.childNodes : [next]));
        for (const id of open) document.getElementById(id)?.setAttribute("open", "");
        history.replaceState(null, "", at);
        copies();
        const says = form.querySelector("output"); // for those who do not see it change
        if (says) says.textContent = part.querySelector("[data-say], [role=alert]")?.textContent ?? "";
      } catch (e) {
        if (e.name === "AbortError") return;
        const note = document.createElement("p");
        note.className = "note bad";
        note.textContent = "The server does not answer; what is below may be old.";
        part.querySelector(":scope > .note.bad")?.remove();
        part.prepend(note);
      } finally { if (asking === mine) part.removeAttribute("aria-busy"); }
      again();
    }
    // What is not ready yet is asked for again.
    function again() {
      if (!document.querySelector(`#${form.dataset.shows} [data-again]`)) return;
      clearTimeout(timer);
      timer = setTimeout(ask, 1000);
    }
    again();
    form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 200); });
    form.addEventListener("submit", (e) => { e.preventDefault(); clearTimeout(timer); ask(); });
    document.getElementById(form.dataset.shows).addEventListener("click", async (e) => {
      const link = e.target.closest("a");
      if (!link || e.ctrlKey || e.metaKey || e.shiftKey || link.hash || link.pathname !== form.getAttribute("action")) return;
      e.preventDefault();
      for (const [k, v] of new URL(link.href).searchParams) {
        const field = form.elements[k];
        if (field && field.type !== "checkbox") field.value = v;
      }
      clearTimeout(timer);
      await ask();
      if (link.id) document.getElementById(link.id)?.focus();
    });
  }

  // A field of several values completes the last one.
  for (const field of document.querySelectorAll("input[data-many][list]")) {
    const known = [...field.list.options].map((o) => o.value);
    const offer = () => {
      const before = field.value.replace(/[^,\s]*$/, ""), has = before.toLowerCase().split(/[,\s]+/);
      field.list.replaceChildren(...known.filter((k) => !has.includes(k.toLowerCase())).map((k) => new Option(k, before + k)));
    };
    field.addEventListener("input", offer);
    offer();
  }

  // What is in .copy gets a button that copies it.
  function copies() {
    if (!navigator.clipboard) return;
    for (const box of document.querySelectorAll(".copy:not(:has(button))")) {
      const text = box.textContent, button = document.createElement("button");
      button.type = "button";
      button.textContent = "Copy";
      button.setAttribute("aria-label", "Copy " + text.slice(0, 200));
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      });
      box.append(button);
    }
  }
})();
