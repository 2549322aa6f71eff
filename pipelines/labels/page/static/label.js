// A task's page: it keeps what is entered, measures the time, and sends until the server says "saved".
// What it knows it reads from data-* attributes of task.html; texts only ever go into textContent or value.

import { $, $$, kept, openDialog, post, readPage } from "./common.js";
import { Choices } from "./choices.js";
import { listen } from "./keys.js";

const form = $("#task");
const task = form.dataset.task;
const who = document.body.dataset.annotator;
const DRAFT = `draft:${who}:`;
const OUTBOX = `outbox:${who}`;
const UNDO = `undo:${who}`;
const WITHDRAWN = `withdrawn:${who}`;
const LAST = `last:${who}`;
const PACE = `pace:${who}`;
const choices = new Choices(form);
const comment = $("#comment");
const commentButton = $("[data-act=comment]");
const flag = $("[data-act=flag]");
let locked = false;
let finished = false;

function say(text, tone = "") {
  $("#status").textContent = text;
  $("#status").className = tone;
}

function lock(on) {
  locked = on;
  for (const part of [form, $("#actions"), $("#comment-box")]) part.inert = on;
  document.body.classList.toggle("busy", on);
  if (!on) (choices.writing || choices.current)?.focus({ preventScroll: true });
}

/** On to another page, as far as it is one of our own. */
function goOn(path) {
  finished = true;
  location.assign(/^\/(?![/\\])/.test(path || "") ? path : "/");
}

function newKey() {
  if (crypto.randomUUID) return crypto.randomUUID();  // browsers have it on loopback and by https only
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- what is entered, and the time it took: kept so that a reload loses nothing -----------------------------------

const draft = kept.read(DRAFT + task);
let spent = draft?.seconds || 0;
let since = visible() ? performance.now() : null;

function visible() {
  return document.visibilityState === "visible";
}

/** Seconds during which this task was to be seen. */
function seconds() {
  return Math.round(10 * (spent + (since === null ? 0 : (performance.now() - since) / 1000))) / 10;
}

function flagged() {
  return flag.getAttribute("aria-pressed") === "true";
}

function entered() {
  return { picks: choices.picks(), text: choices.writing?.value, comment: comment.value, flagged: flagged() };
}

function keep() {
  if (!finished) kept.write(DRAFT + task, { ...entered(), version: form.dataset.version, seconds: seconds() });
}

function restore() {
  const found = withdrawn() || (draft?.version === form.dataset.version ? draft : null);
  if (!found) return;
  choices.restore(found.picks);
  if (choices.writing && typeof found.text === "string") choices.writing.value = found.text;
  comment.value = found.comment;
  flag.setAttribute("aria-pressed", String(found.flagged));
  keep();
}

/** What "undo" took back of this task just now, as it was entered here or as the server tells it. */
function withdrawn() {
  const found = kept.read(WITHDRAWN);
  kept.drop(WITHDRAWN);
  if (found?.task !== task || form.dataset.version !== String(found.version + 1)) return null;
  const last = kept.read(LAST);  // it knows more: ranks with a hole, and what had been chosen before a skip
  if (last?.task === task && last.version === found.version) return last;
  return { ...found, picks: choices.picksOf(found.values), text: found.values[choices.writing?.dataset.question] };
}

document.addEventListener("visibilitychange", () => {
  spent = seconds();
  since = visible() ? performance.now() : null;
  keep();
});
addEventListener("pagehide", keep);

function show() {
  choices.show($("#order"));
  commentButton.classList.toggle("filled", comment.value.trim() !== "");
}

function changed(cell) {
  choices.latest = cell;
  say("");
  show();
  keep();
  $("#spoken").textContent = choices.spoken(cell);
}

// --- sending ------------------------------------------------------------------------------------------------------

function submit() {
  if (locked) return;
  if (choices.writing && !choices.writing.value.trim()) {
    say("Nothing is written yet", "warn");
    choices.writing.focus();
    return;
  }
  const cell = choices.missing();
  if (cell) {
    say(`${choices.nameOf(cell)}: no choice yet`, "warn");
    choices.mark(cell, { focus: true, scroll: true });
    return;
  }
  send(submission(false));
}

function submission(skipped) {
  return {
    task, key: newKey(), version: Number(form.dataset.version), values: skipped ? {} : choices.values(),
    comment: comment.value.trim(), flagged: flagged(), skipped, seconds: seconds(),
  };
}

async function send(body) {
  lock(true);
  $("#conflict").hidden = true;
  kept.write(OUTBOX, body);
  say("Saving…");
  const { status, data } = await postUntilAnswered("/api/submit", body, "saved", (got) => Number.isInteger(got.version));
  kept.drop(OUTBOX);
  if (status === 200) saved(body, data);
  else refused(body, status, data);
}

/** Post until the server has taken it or refused it. The key stays the same, so that a second arrival does no harm. */
async function postUntilAnswered(path, body, done, whole) {
  for (let wait = 1; ; wait = Math.min(2 * wait, 8)) {
    const { status, data } = await post(path, body);
    if (status === 200 && whole(data)) return { status, data };
    if (status >= 400 && status < 500 && status !== 408 && status !== 429) return { status, data };
    say(`Not ${done} yet: the server does not answer. Trying again in ${wait} s; please keep this page open.`, "warn");
    await pause(wait);
  }
}

/** So many seconds, or until somebody presses "Try now" or the network is back. */
async function pause(wait) {
  const again = $("#again");
  again.hidden = false;
  await new Promise((resolve) => {
    setTimeout(resolve, 1000 * wait);
    again.onclick = resolve;
    addEventListener("online", resolve, { once: true });
  });
  again.hidden = true;
}

function saved(body, data) {
  const order = body.task === task ? choices.orderIn(body.values) : "";
  const words = body.skipped ? "Skipped" : `Saved${order && ": " + order}`;
  kept.drop(DRAFT + body.task);
  if (body.task === task) kept.write(LAST, { ...entered(), task, version: data.version });
  if (!body.skipped) kept.write(PACE, [...(kept.read(PACE) || []), body.seconds].slice(-50));
  kept.write("told", words);
  say(words, "good");
  goOn(data.next);
}

function refused(body, status, data) {
  lock(false);
  const reasons = {
    401: "you are signed out. Ask for a new link; what you entered stays in this tab",
    403: "you are signed out. Ask for a new link; what you entered stays in this tab",
    423: "the project is paused. What you entered stays here; submit it again later",
  };
  const earlier = body.task === task ? "" : "an earlier answer: ";
  if (status === 409 && !earlier) conflict(body, data);
  else say(`Not saved: ${earlier}${reasons[status] || data.error || `the server answered ${status}`}`, "warn");
}

/** Something else stands now, mostly because another tab was faster: show both and let the annotator choose. */
function conflict(body, data) {
  say("Not saved: this task was answered in another tab", "warn");
  if (data.kept) spent -= body.seconds;  // it had arrived, and its time counts already
  $("#conflict-saved").textContent = choices.describe(data.values) || "no answer (skipped or taken back)";
  $("#conflict-here").textContent = body.skipped ? "skip" : choices.describe(body.values);
  $("#conflict").hidden = false;
  $("#conflict").focus();
  $("#keep-saved").onclick = () => {
    kept.drop(DRAFT + task);
    goOn("/");
  };
  $("#keep-mine").onclick = () => {
    form.dataset.version = data.version;
    send({ ...body, version: data.version, key: newKey(), seconds: seconds() });
  };
}

function undo() {
  if (locked) return;
  keep();
  takeBack({ key: newKey() });
}

async function takeBack(body) {
  lock(true);
  kept.write(UNDO, body);
  const whole = (got) => typeof got.task === "string";
  const { status, data } = await postUntilAnswered("/api/undo", body, "taken back", whole);
  kept.drop(UNDO);
  if (status === 200) {
    kept.drop(DRAFT + data.task);
    if (!data.stands && data.withdrawn) kept.write(WITHDRAWN, { task: data.task, ...data.withdrawn });
    kept.write("told", data.stands
      ? "The edit is taken back: your earlier answer stands again"
      : "Taken back: change it and submit it again");
    goOn(data.next);
    return;
  }
  lock(false);
  say(`Not undone: ${data.error || status}`, "warn");
}

// --- buttons ------------------------------------------------------------------------------------------------------

function openComment(open) {
  $("#comment-box").hidden = !open;
  commentButton.setAttribute("aria-expanded", String(open));
}

const acts = {
  undo,
  skip: () => { if (!locked) send(submission(true)); },
  flag: () => {
    flag.setAttribute("aria-pressed", String(!flagged()));
    say(flagged() ? "Flagged: say in the comment what is wrong (key c), then submit or skip" : "");
    if (flagged()) openComment(true);  // without the focus, so that the next key still acts
    keep();
  },
  comment: () => {
    // A second click closes it.
    const again = document.activeElement === commentButton && !$("#comment-box").hidden && !flagged();
    openComment(!again || comment.value.trim() !== "");
    if (!again) comment.focus();
  },
};

const earlier = $("#earlier");
if (earlier) {
  earlier.open = kept.read("earlier") === true;
  earlier.addEventListener("toggle", () => kept.write("earlier", earlier.open));
}

const panelLink = $("[data-panel]");

/** The guidelines beside the task, or as a page of their own where they cannot be fetched. */
async function guidelines() {
  if (!panelLink) return;
  try {
    const found = $("#guidelines", await readPage(panelLink.href));
    $("#panel-body").replaceChildren(...found.childNodes);
    openDialog($("#panel"));
  } catch {
    location.assign(panelLink.href);
  }
}

panelLink?.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  guidelines();
});
for (const button of $$("[data-act]")) button.addEventListener("click", () => acts[button.dataset.act]());
form.addEventListener("submit", (event) => { event.preventDefault(); submit(); });
for (const area of [comment, choices.writing]) area?.addEventListener("input", () => { show(); keep(); });
for (const card of $$(".card", form)) {
  const first = choices.cells.find((cell) => cell.dataset.place === card.dataset.place);
  card.addEventListener("click", (event) => { if (first && !event.target.closest(".cell")) choices.mark(first); });
}
for (const cell of choices.cells) {
  cell.addEventListener("focusin", () => choices.mark(cell));
  cell.addEventListener("change", () => changed(cell));
  for (const radio of choices.radios(cell)) {
    // A second click on the same choice takes it away: radio buttons alone cannot be emptied.
    let before = false;
    radio.parentElement.addEventListener("pointerdown", () => { before = radio.checked; });
    radio.addEventListener("click", () => {
      if (!before) return;
      before = false;
      choices.choose(cell, undefined);
      changed(cell);
    });
  }
}

// --- begin --------------------------------------------------------------------------------------------------------

restore();
show();
choices.mark(choices.cells.find((cell) => !choices.chosen(cell)) || choices.cells[0]);
choices.writing?.focus({ preventScroll: true });
openComment(comment.value !== "" || flagged());
listen(choices, {
  submit,
  locked: () => locked,
  byKey: { s: acts.skip, u: undo, f: acts.flag, c: acts.comment, g: guidelines, e: () => { if (earlier) earlier.open = !earlier.open; },
    "?": () => openDialog($("#help")) },
}, changed);
new ResizeObserver(([bar]) => {  // so that what sticks above the bar, and what is scrolled to, stays clear of it
  document.documentElement.style.setProperty("--bar", `${bar.target.offsetHeight}px`);
}).observe($(".bar"));
const heights = new ResizeObserver((cards) => {
  for (const { target } of cards) {
    // Controls that would cover the text themselves do not stick.
    const low = ($(".controls", target)?.offsetHeight ?? target.offsetHeight) < 0.4 * innerHeight;
    target.classList.toggle("tall", target.offsetHeight > 0.6 * innerHeight);
    target.classList.toggle("sticks", low);
  }
});
for (const part of $$(".card, .verdict", form)) heights.observe(part);
say(kept.read("told") || "", "good");
kept.drop("told");
const pace = (kept.read(PACE) || []).sort((a, b) => a - b);
if (pace.length > 2) {
  $("#pace").textContent = `${Math.round(pace[Math.floor(pace.length / 2)])} s each`;
  $("#pace").hidden = false;
}
// What was sent, but the page went away before the server had answered.
const outbox = kept.read(OUTBOX);
const unfinished = kept.read(UNDO);
if (outbox) send(outbox);
else if (unfinished) takeBack(unfinished);
