"use strict";
// Asks for the page again and takes over the parts that have changed. A part that somebody is using, and what is selected in it, stays.
(() => {
  const interval = 5000;
  const stale = document.getElementById("stale");

  const inUse = (section) => {
    const selection = document.getSelection();
    return section.contains(document.activeElement) ||
      selection !== null && !selection.isCollapsed && section.contains(selection.anchorNode);
  };

  const takeOver = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    document.title = fresh.title;
    for (const id of ["age", "health", "traffic", "limits", "certificates", "events", "sessions"]) {
      const from = fresh.getElementById(id), to = document.getElementById(id);
      if (from !== null && to !== null && from.innerHTML !== to.innerHTML && !inUse(to)) {
        const left = [...to.querySelectorAll(".wide")].map((e) => e.scrollLeft);
        to.replaceChildren(...from.childNodes);
        to.querySelectorAll(".wide").forEach((e, i) => { e.scrollLeft = left[i] || 0; });
      }
    }
  };

  const refresh = async () => {
    if (document.hidden) {
      return;
    }
    try {
      const answer = await fetch(location.origin + location.pathname + location.search, { cache: "no-store", signal: AbortSignal.timeout(interval) });
      if (!answer.ok) {
        throw new Error(String(answer.status));
      }
      takeOver(await answer.text());
      stale.hidden = true;
    } catch {
      stale.hidden = false;
    }
  };

  setInterval(refresh, interval);
  document.addEventListener("visibilitychange", refresh);
})();
