// The keyboard of a task's page. Keys of one character can be switched off: speech input types them by accident.

import { $ } from "./common.js";

/** Answer keys: digits choose in the marked cell, arrows move the mark, letters and Enter are `acts`. */
export function listen(choices, acts, changed) {
  const switchOn = $("#keys-on");
  try { switchOn.checked = localStorage.getItem("rlhf:keys") !== "off"; } catch { /* stays on */ }
  switchOn.addEventListener("change", () => {
    try { localStorage.setItem("rlhf:keys", switchOn.checked ? "on" : "off"); } catch { /* for this page only */ }
  });

  function step(by) {
    const next = choices.cells[choices.cells.indexOf(choices.current) + by];
    if (next) choices.mark(next, { focus: true, scroll: true });
  }

  /** Choose in the marked cell; then the mark goes on to the next one without a choice. */
  function pick(key) {
    const cell = choices.current;
    const value = cell && choices.meaning(cell, key);
    if (!value) return false;
    choices.choose(cell, value);
    changed(cell);
    const next = choices.cells.slice(choices.cells.indexOf(cell) + 1).find((each) => !choices.chosen(each));
    choices.mark(next || cell, { focus: true, scroll: Boolean(next) });
    return true;
  }

  function clear() {
    choices.choose(choices.current, undefined);
    changed(choices.current);
    choices.current.focus({ preventScroll: true });
  }

  /** Whether the key had a meaning, outside of a text field. */
  function took(key, target) {
    const onRadio = target.matches("input[type=radio]");  // there the browser's own arrows choose
    const by = { ArrowRight: 1, ArrowLeft: -1 }[key];
    if (!onRadio && choices.current && by) step(by);
    else if (choices.current && (key === "Backspace" || key === "Delete")) clear();
    else if (!switchOn.checked) return false;
    else if (!pick(key)) {
      if (!Object.hasOwn(acts.byKey, key)) return false;
      acts.byKey[key]();
    }
    return true;
  }

  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (event.isComposing || event.altKey || $("dialog[open]")) return;
    const typing = target.matches("textarea");
    if (key === "Enter" && (event.ctrlKey || event.metaKey || !(typing || target.closest("button, a")))) {
      event.preventDefault();
      if (!event.repeat) acts.submit();
    } else if (event.ctrlKey || event.metaKey || event.repeat || acts.locked()) {
      return;
    } else if (typing) {
      if (key !== "Escape") return;
      target.blur();
      choices.current?.focus({ preventScroll: true });
    } else if (took(key, target)) {
      event.preventDefault();
    }
  });
}
