// The choices on a task's page: which there are, what they mean, and how they are shown.
// A cell is one question about one answer (a fieldset of radio buttons); of a pairwise choice there is one for both.

import { $, $$ } from "./common.js";

export const letterOf = (place) => String.fromCharCode(64 + Number(place));
const words = (name) => name.replaceAll("_", " ");

/** Picked ranks to ranks without a hole: 1, 1, 3 becomes 1, 1, 2. */
export function dense(picks) {
  const distinct = [...new Set(picks)].sort((a, b) => a - b);
  return picks.map((pick) => distinct.indexOf(pick) + 1);
}

/** Letters by rank, best first: [["B"], ["A", "C"]]; an answer of rank 0 has none yet and is left out. */
function groups(ranks) {
  const byRank = new Map();
  ranks.forEach((rank, index) => rank && byRank.set(rank, [...(byRank.get(rank) || []), letterOf(index + 1)]));
  return [...byRank].sort((a, b) => a[0] - b[0]).map(([, letters]) => letters);
}

/** Ranks by shown place as "B > A = C". */
export const orderText = (ranks) => groups(ranks).map((tied) => tied.join(" = ")).join(" > ");

/** The same for the ear: "B, then A and C tied". */
function orderSpoken(ranks) {
  return groups(ranks).map((tied) => tied.join(" and ") + (tied[1] ? " tied" : "")).join(", then ");
}

export class Choices {
  constructor(form) {
    this.form = form;
    this.cells = $$(".cell", form);
    this.writing = $("#writing", form);
    /** The cell that keys go to. */
    this.current = null;
    /** The cell in which something was chosen last. */
    this.latest = null;
  }

  radios(cell) { return $$("input", cell); }
  chosen(cell) { return this.radios(cell).find((radio) => radio.checked)?.value; }
  cellsOf(question) { return this.cells.filter((cell) => cell.dataset.question === question); }
  questions(...kinds) {
    const asked = this.cells.filter((cell) => !kinds.length || kinds.includes(cell.dataset.kind));
    return [...new Set(asked.map((cell) => cell.dataset.question))];
  }

  /** By name of the question: its value by shown place; questions without an answer are left out. */
  values() {
    if (this.writing) return { [this.writing.dataset.question]: this.writing.value };
    const found = {};
    for (const question of this.questions()) {
      const asked = this.cellsOf(question);
      const picks = asked.map((cell) => this.chosen(cell));
      if (picks.includes(undefined)) continue;
      if (asked[0].dataset.kind === "pairwise") found[question] = picks[0].split(",").map(Number);
      else found[question] = asked[0].dataset.kind === "ranking" ? dense(picks.map(Number)) : picks.map(Number);
    }
    return found;
  }

  /** The first cell that still needs a choice: an optional question is left out as a whole or not at all. */
  missing() {
    const begun = new Set(this.cells.filter((cell) => this.chosen(cell)).map((cell) => cell.dataset.question));
    const needed = (cell) => "required" in cell.dataset || begun.has(cell.dataset.question);
    return this.cells.find((cell) => !this.chosen(cell) && needed(cell));
  }

  /** What a cell is about, in words. */
  nameOf(cell) {
    const name = cell.dataset.place ? `Answer ${letterOf(cell.dataset.place)}` : "The comparison";
    return this.questions().length > 1 ? `${name}, ${words(cell.dataset.question)}` : name;
  }

  choose(cell, value) {
    for (const radio of this.radios(cell)) radio.checked = radio.value === value;
  }

  /** What a key means to a cell: the value of one of its choices, or undefined. */
  meaning(cell, key) {
    const wanted = {
      pairwise: { 1: "1,2", 2: "2,1", 0: "1,1", "=": "1,1" }[key],
      binary: { y: "1", n: "0", 1: "1", 0: "0" }[key],
      scale: key === "0" ? "10" : key,
      ranking: key,
    }[cell.dataset.kind];
    return this.radios(cell).map((radio) => radio.value).find((value) => value === wanted);
  }

  /** The cell that keys go to from now on: framed, and its card with it. */
  mark(cell, { focus = false, scroll = false } = {}) {
    for (const old of $$(".current", this.form)) old.classList.remove("current");
    this.current = cell;
    if (!cell) return;
    const card = cell.closest(".card");
    cell.classList.add("current");
    card?.classList.add("current");
    if (focus) cell.focus({ preventScroll: true });
    if (scroll) (card || cell).scrollIntoView({ block: "nearest" });
  }

  /** All picks as [name, value], to be kept; and back. */
  picks() { return $$("input:checked", this.form).map((radio) => [radio.name, radio.value]); }
  /** The picks that make these values, by shown place. */
  picksOf(values) {
    return this.cells.filter((cell) => values[cell.dataset.question]).map((cell) => {
      const value = values[cell.dataset.question];
      return [this.radios(cell)[0].name, cell.dataset.place ? String(value[cell.dataset.place - 1]) : value.join(",")];
    });
  }
  restore(picks) {
    const wanted = new Map(picks);
    for (const cell of this.cells) this.choose(cell, wanted.get(this.radios(cell)[0].name));
  }

  /** The order of the letters in a submission's values; "" where nothing is ranked. */
  orderIn(values) {
    const name = this.questions("ranking", "pairwise").find((question) => values[question]);
    return name ? orderText(values[name]) : "";
  }

  /** A submission's values in words. */
  describe(values) {
    const ranked = this.questions("ranking", "pairwise");
    const one = ([name, value]) => {
      if (typeof value === "string") return value.length > 200 ? value.slice(0, 200) + "…" : value;
      if (ranked.includes(name)) return orderText(value);
      return `${words(name)}: ${value.map((number, at) => `${letterOf(at + 1)} ${number}`).join(", ")}`;
    };
    return Object.entries(values || {}).map(one).join("; ");
  }

  /** What has just been chosen in a cell, for the ear. */
  spoken(cell) {
    const order = this.questions("ranking", "pairwise").includes(cell.dataset.question);
    if (!order || !this.chosen(cell)) return `${this.nameOf(cell)}: ${this.#wordOf(cell) ?? "no choice"}`;
    return "Order: " + orderSpoken(this.#picks(cell.dataset.question));
  }

  /** The picked ranks of a ranking or a pair by shown place, 0 for none yet. */
  #picks(question) {
    return this.cellsOf(question).map((cell) => this.chosen(cell) || "0").join(",").split(",").map(Number);
  }

  /** Show what is chosen: ties and finished cards, the order so far in `order`, and how much is missing. */
  show(order) {
    const rankings = this.questions("ranking", "pairwise");
    const several = this.questions().length > 1;
    const lines = rankings.map((question) => this.#orderLine(question, rankings.length > 1));
    // Of several questions with a value for each answer, the bar has room for one.
    const marked = this.latest?.dataset.question ?? this.questions("binary", "scale")[0];
    if (this.questions("binary", "scale").includes(marked)) lines.push(this.#markLine(marked, several));
    const given = this.cells.filter((cell) => this.chosen(cell)).length;
    const count = this.cells.length > 1 ? `${given} of ${this.cells.length} given` : "no choice yet";
    const hint = this.questions("ranking").length && !given ? "1 is best; the same rank is a tie" : count;
    if (given < this.cells.length) lines.push(element("span", "quiet", hint));
    order.replaceChildren(...lines.filter(Boolean));
    for (const card of $$(".card", this.form)) {
      const mine = this.cells.filter((cell) => cell.dataset.place === card.dataset.place);
      card.classList.toggle("given", mine.length > 0 && mine.every((cell) => this.chosen(cell)));
    }
    if (this.writing) $("#count").textContent = sizeText(this.writing.value);
  }

  /** A chosen value in words. */
  #wordOf(cell) {
    const radio = this.radios(cell).find((each) => each.checked);
    return radio && (radio.dataset.word || radio.value);
  }

  /** The values that are chosen for the answers, as "A yes  B no"; null: none yet. */
  #markLine(question, named) {
    const cells = this.cellsOf(question).filter((cell) => this.chosen(cell));
    if (!cells.length) return null;
    const line = element("span", "line", "");
    if (named) line.append(element("span", "name", words(question)));
    for (const cell of cells) {
      const letter = this.cellsOf(question).length > 1 ? `${letterOf(cell.dataset.place)} ` : "";
      line.append(element("span", "chip letter-chip", letter + this.#wordOf(cell)));
    }
    return line;
  }

  #orderLine(question, named) {
    const picks = this.#picks(question);
    this.cellsOf(question).forEach((cell, index) => {
      const tied = picks[index] > 0 && picks.filter((pick) => pick === picks[index]).length > 1;
      const chip = $(".tied", cell);
      if (!chip) return;  // a pairwise choice has none
      chip.textContent = tied ? `tied for ${picks[index]}` : "";
      chip.hidden = !tied;
    });
    if (!picks.some(Boolean)) return null;
    const line = element("span", "line", "");
    if (named) line.append(element("span", "name", words(question)));
    groups(picks).forEach((tied, index) => {
      if (index) line.append(element("span", "sign", ">"));
      tied.forEach((letter, at) => {
        if (at) line.append(element("span", "sign", "="));
        line.append(element("span", "chip letter-chip", letter));
      });
    });
    return line;
  }
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function sizeText(text) {
  const count = (text.match(/\S+/g) || []).length;
  return `${[...text].length} characters, ${count} ${count === 1 ? "word" : "words"}`;
}
