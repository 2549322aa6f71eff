// Every page: times in the reader's zone, dialogs; and what the other scripts use: finding elements, posting, remembering.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** What belongs to this tab alone, so that a reload loses nothing; it is gone when the tab is closed. */
export const kept = {
  read(name) {
    try { return JSON.parse(sessionStorage.getItem("rlhf:" + name)); } catch { return null; }
  },
  write(name, value) {
    try { sessionStorage.setItem("rlhf:" + name, JSON.stringify(value)); } catch { /* full or forbidden: go without */ }
  },
  drop(name) {
    try { sessionStorage.removeItem("rlhf:" + name); } catch { /* as above */ }
  },
};

/** POST as JSON. Status 0: no whole answer came back, so nobody knows whether the request arrived. */
export async function post(path, body) {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), 20000);
  try {
    const answer = await fetch(path, {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "Content-Type": "application/json", "X-RLHF": "1" },
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal: abort.signal,
    });
    const text = await answer.text();
    return { status: answer.status, data: parsed(text) };
  } catch {
    return { status: 0, data: {} };
  } finally {
    clearTimeout(timer);
  }
}

function parsed(text) {
  try { return JSON.parse(text) ?? {}; } catch { return {}; }
}

/** Another page of our own, read without leaving this one. */
export async function readPage(path) {
  const answer = await fetch(path, { credentials: "same-origin", cache: "no-store" });
  if (!answer.ok) throw new Error(String(answer.status));
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
}

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-open]");
  const closer = event.target.closest("[data-close]");
  if (opener) openDialog($("#" + opener.dataset.open));
  else if (closer || event.target.matches("dialog")) event.target.closest("dialog").close();
});

const ZONED = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** The times of a page, which the server writes in UTC, in the zone and words of the reader. */
export function localTimes(root = document) {
  for (const time of $$("time[datetime]", root)) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.title = time.dateTime;
    time.textContent = ZONED.format(at);
  }
}
localTimes();

// A page that the browser kept for its "back" shows an old version of the task.
addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
