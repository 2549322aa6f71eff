// The admin page: pause, links, and figures that stay fresh.

import { $, $$, localTimes, post, readPage } from "./common.js";

const EVERY = 5000;

/** One of the admin's posts; a link in the answer is shown, to be copied. */
async function act(path, body) {
  const { status, data } = await post(path, body);
  const ok = status === 200;
  $("#status").className = ok ? "good" : "warn";
  $("#status").textContent = ok ? "Done" : data.error || "The server does not answer; see below whether it was done";
  if (ok && data.link) {
    $("#link-for").textContent = body.name;
    $("#link").value = data.link;
    $("#new-link").hidden = false;
    $("#link").focus();
    $("#link").select();
  }
  await refresh();
  return ok;
}

/** Fetch this page anew and put its figures in the place of the old ones. */
async function refresh() {
  try {
    const page = await readPage(location.pathname);
    localTimes(page);
    for (const old of $$("[data-live]")) {
      const fresh = page.getElementById(old.id);
      // Not under somebody's hands: a button that has the focus would lose it.
      const busy = old.contains(document.activeElement) && document.activeElement.matches(":focus-visible");
      if (fresh && fresh.innerHTML !== old.innerHTML && !busy) old.replaceWith(fresh);
    }
    $("#stale").hidden = true;
  } catch {
    $("#stale").hidden = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (!button || (button.dataset.confirm && !confirm(button.dataset.confirm))) return;
  button.blur();
  act(button.dataset.post, JSON.parse(button.dataset.body));
});

$("#add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = $("#add input");
  const name = field.value.trim();
  if (name && await act(event.target.dataset.post, { name })) field.value = "";
});

$("#copy").addEventListener("click", async () => {
  $("#link").select();
  try {
    await navigator.clipboard.writeText($("#link").value);
  } catch {
    document.execCommand("copy");  // by plain http from another host there is no clipboard
  }
  $("#status").textContent = "Copied";
});

/** Again and again while the page is seen; a slow server gets longer breaks. */
async function watch() {
  const begun = performance.now();
  if (document.visibilityState === "visible") await refresh();
  setTimeout(watch, Math.max(EVERY, 4 * (performance.now() - begun)));
}
setTimeout(watch, EVERY);
