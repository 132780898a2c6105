// Attention of translations, to point at: ribbons, matrix and table of one sentence at a time.
// The page's data is the JSON beside this script, made in sentence.py. Whatever it holds is set as
// text, never as HTML: a run may come from a stranger.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const several = data.runs.length > 1;
const view = { form: "auto", unit: "words" };
const RIBBON = 0.02; // the least weight that is drawn
const MAX_WORDS = 30, MAX_RIBBONS = 4; // of a side, and per word: beyond, ribbons hide one another
const panels = new Set(); // those that are on the page

// Elements -----------------------------------------------------------------------------------------

/** Make an element; names that begin with "svg:" are SVG, keys that begin with "on" listeners. */
function el(name, attributes = {}, ...children) {
  const node = name.startsWith("svg:")
    ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** Text of a run, isolated from its surroundings, in its own direction and not in the page's language. */
const isolated = (text, lang) => el("bdi", { dir: "auto", lang: lang ?? "" }, text);
const quoted = (text, lang) => el("span", {}, "\u201c", isolated(text, lang), "\u201d");
const percent = (share) => `${Math.round(100 * share)}\u202f%`;
/** A number with some decimals, or with two digits where those would all be 0. */
const fixed = (x, digits = 2) => x === null || x === undefined ? "\u2013"
  : (x && Math.abs(x) < 0.5 / 10 ** digits ? x.toPrecision(2) : x.toFixed(digits)).replaceAll("-", "\u2212");

/** A table; the first cell of a row names it, and `head`, if there is one, the columns. */
function table(caption, head, rows, kind = "") {
  const header = head && el("thead", {},
    el("tr", {}, ...head.map((content) => el("th", { scope: "col" }, content))));
  const body = rows.map(([first, ...rest]) => el("tr", {}, el("th", { scope: "row" }, first),
    ...rest.map((content) => el("td", {}, content))));
  return el("div", { class: `scroll ${kind}`, tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", { class: "hidden" }, caption), header,
      el("tbody", {}, ...body)));
}

/** Radio buttons in the shape of one switch. */
function choice(legend, name, options, chosen, change) {
  const radios = options.map(([value, label]) => el("label", {},
    el("input", { type: "radio", name, value, checked: value === chosen,
      onchange: () => change(value) }), el("span", {}, label)));
  return el("fieldset", { class: "switch" }, el("legend", { class: "hidden" }, legend), ...radios);
}

const runName = (r) => el("span", { class: `run run${r % 6}` },
  el("i", { "aria-hidden": "true" }), isolated(data.runs[r].name));

// Weights ------------------------------------------------------------------------------------------

/** Unpack bytes of 1/255 in base64; a zero is followed by the number of zeros in a row. */
function unpack(text, rows, columns) {
  const bytes = atob(text), flat = new Float32Array(rows * columns);
  for (let i = 0, at = 0; i < bytes.length; i++) {
    const byte = bytes.charCodeAt(i);
    if (byte) flat[at++] = byte / 255;
    else at += bytes.charCodeAt(++i);
  }
  return Array.from({ length: rows }, (_, i) => flat.subarray(i * columns, (i + 1) * columns));
}

/** The two sides of an alignment, and what one attends to in the other. */
class Grid {
  constructor({ source, target, probability, weights }, kind = "heads") {
    Object.assign(this, { source, target, probability, weights }, MAPS[kind]);
    if (typeof weights === "string") this.weights = unpack(weights, target.length, source.length);
  }
  /** Whether ribbons can be told apart: sentences are short, and words attend to a few places. */
  get isReadable() {
    const ribbons = this.weights.reduce((sum, row) => sum + row.filter((w) => w >= RIBBON).length, 0);
    return Math.max(this.source.length, this.target.length) <= MAX_WORDS
      && ribbons <= MAX_RIBBONS * this.target.length;
  }
  towards(side, index) {
    return side === "target" ? this.weights[index] : this.weights.map((row) => row[index]);
  }
  /** The greatest weights of a word: [index, weight], at most `most`, none below 1%. */
  links(side, index, most) {
    return [...this.towards(side, index)].map((w, i) => [i, w]).filter(([, w]) => w >= 0.01)
      .sort((a, b) => b[1] - a[1]).slice(0, most);
  }
}

// One translation of one run -----------------------------------------------------------------------

class Panel {
  constructor(sentence, r) {
    this.run = data.runs[r];
    this.found = sentence.runs[r].found;
    this.languages = sentence.runs[r].languages ?? {};
    this.chosen = this.found[0];
    this.pinned = null;
    const name = `hypothesis-${sentence.number}-${r}`;
    this.picker = this.run.layers ? new Picker(this, r, name) : null;
    const rows = this.found.map((found, i) => el("label", {},
      el("input", { type: "radio", name, checked: i === 0, onchange: () => this.choose(found) }),
      el("span", { class: "kind" }, found.label),
      el("span", { class: "text" }, isolated(found.text || "(nothing)", this.languages.target)),
      el("span", { class: "value", title: "score: the higher the better" }, fixed(found.score))));
    this.numbers = el("dl", { class: "numbers" });
    this.figure = el("div", { class: "attention", role: "group" });
    this.explanation = el("p", { class: "explanation", "aria-live": "polite" });
    this.node = el("section", { class: "panel" }, several ? el("h4", {}, runName(r)) : null,
      el("div", { class: "inside" },
        el("fieldset", { class: "hypotheses" }, el("legend", {}, "Translation shown"), ...rows),
        this.picker?.node ?? null, this.numbers, this.explanation, this.figure));
    for (const [type, act] of [["mouseover", "enter"], ["focusin", "enter"], ["mouseout", "leave"],
      ["focusout", "leave"], ["click", "pin"], ["keydown", "key"]])
      this.figure.addEventListener(type, (event) => this[act](event));
    this.resized = new ResizeObserver(() => this.draw?.());
    panels.add(this);
    this.show();
  }

  close() {
    this.resized.disconnect();
    panels.delete(this);
  }

  choose(found) {
    this.chosen = found;
    this.show();
  }

  /** Draw everything again: another hypothesis, form, unit or head. */
  show(pinned = null) {
    const found = this.chosen, level = found[view.unit], own = this.picker?.show(level);
    this.grid = own ? new Grid(own, this.picker.pick.kind) : new Grid(level);
    this.form = view.form !== "auto" ? view.form : this.grid.isReadable ? "ribbons" : "matrix";
    this.pinned = pinned;
    this.draw = null;
    const none = "\u2013", usual = !own || this.picker.usual;
    const numbers = [["Score", fixed(found.score), "log-probability, normalised by length"],
      ["Entropy", usual ? fixed(found.entropy) : none, "nats; 0: each word attends to one place"],
      ["Coverage", found.coverage === null || !usual ? none : percent(found.coverage),
        "source words that get at least half a word\u2019s attention"],
      ["chrF", fixed(found.chrf, 0), "against the reference, 0 to 100"],
      ["Flags", Object.keys(found.flags).join(", ") || none, Object.values(found.flags).join("; ")]];
    this.numbers.replaceChildren(...numbers.filter((row) => row[1] !== none).map(
      ([name, value, title]) => el("div", { title }, el("dt", {}, name), el("dd", {}, value))));
    this.figure.setAttribute("aria-label",
      `Attention of ${found.label}${own ? `, ${this.picker.text}` : ""}`);
    this.figure.className = `attention ${this.form}`;
    this.resized.disconnect();
    this.figure.replaceChildren(this[this.form]());
    this.buttons = [...this.figure.querySelectorAll("button")];
    this.rove(this.word("target", 0));
    this.tell(pinned);
    if (this.draw) this.resized.observe(this.figure); // which draws as soon as there is a size
  }

  /** A word as a button; which one it is stands in its data. */
  button(side, index) {
    const text = this.grid[side][index], lang = this.lang(side);
    const space = view.unit === "pieces" && text.startsWith("\u2581");
    const label = space
      ? [el("span", { class: "space" }, "\u2581"), isolated(text.slice(1), lang)] : [isolated(text, lang)];
    return el("button", { type: "button", class: ["</s>", START].includes(text) ? "word end" : "word", tabindex: "-1",
      "data-side": side, "data-index": index, "aria-pressed": "false" }, ...label);
  }

  lang(side) {
    return this.languages[this.grid.sides[side]];
  }

  word(side, index) {
    return this.buttons.find((b) => b.dataset.side === side && +b.dataset.index === index);
  }

  words(side) {
    return this.grid[side].map((_, index) => this.button(side, index));
  }

  // Forms: each returns what is put into the figure.

  ribbons() {
    const svg = el("svg:svg", { "aria-hidden": "true" });
    const column = (side, title) => el("div", { class: `column ${side}` }, el("h5", {}, title),
      el("ul", {}, ...this.words(side).map((button) => el("li", {}, button))));
    const columns = ["source", "target"].map((side) => column(side, this.grid.titles[side]));
    this.draw = () => this.drawRibbons(svg, columns);
    return el("div", { class: "columns" }, columns[0], svg, columns[1]);
  }

  drawRibbons(svg, columns) {
    const box = svg.getBoundingClientRect(), middle = (node) => {
      const place = node.getBoundingClientRect();
      return [(place.top + place.bottom) / 2 - box.top, place.height];
    };
    const [left, right] = columns.map((node) => [...node.querySelectorAll("button")].map(middle));
    svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
    const paths = [];
    this.grid.weights.forEach((row, i) => row.forEach((weight, j) => {
      if (weight < RIBBON) return;
      const [y, height] = left[j], [end] = right[i];
      const path = el("svg:path", { d: `M0,${y}C${box.width / 2},${y} ${box.width / 2},${end} `
        + `${box.width},${end}`, "stroke-width": Math.max(1, weight * height * 0.7),
        "data-row": i, "data-column": j });
      path.style.setProperty("--w", weight);
      paths.push(path);
    }));
    svg.replaceChildren(...paths);
    this.light();
  }

  matrix() {
    const { source, target, weights, sides } = this.grid;
    const head = source.map((_, j) => el("th", { scope: "col" }, this.button("source", j)));
    const rows = target.map((_, i) => el("tr", {}, el("th", { scope: "row" }, this.button("target", i)),
      ...source.map((_, j) => {
        const cell = el("td", { "data-row": i, "data-column": j },
          el("span", { class: "hidden" }, percent(weights[i][j])));
        cell.style.setProperty("--w", weights[i][j]);
        return cell;
      })));
    return el("div", { class: "scroll", tabindex: "0", role: "region",
      "aria-label": `Matrix, ${sides.target} words down, ${sides.source} words across` },
      el("table", {}, el("caption", { class: "hidden" }, `Share of attention that each ${sides.target} `
        + `word (rows) gives to each ${sides.source} word (columns)`),
        el("thead", {}, el("tr", {}, el("td"), ...head)), el("tbody", {}, ...rows)));
  }

  table() {
    const { source, target, probability, sides } = this.grid;
    const rows = target.map((_, i) => [this.button("target", i),
      ...(probability ? [percent(probability[i])] : []),
      el("span", {}, ...this.grid.links("target", i, 3).flatMap(([j, weight], n) =>
        [n ? ", " : null, quoted(source[j], this.lang("source")), ` ${percent(weight)}`]))]);
    return table(`What each ${sides.target} word attends to`,
      ["Word", ...(probability ? ["Probability"] : []), "Attends to"], rows);
  }

  // Pointing: `at` is {side, index} and, in the matrix, the other index.

  place(event) {
    const node = event.target.closest("[data-side], [data-row]");
    if (!node) return null;
    const { side, index, row, column } = node.dataset;
    return side ? { side, index: +index } : { side: "target", index: +row, other: +column };
  }

  enter(event) {
    const at = this.place(event);
    if (at) this.tell(at);
  }

  leave() {
    this.tell(this.pinned);
  }

  pin(event) {
    const at = this.place(event);
    const same = at && this.pinned && at.side === this.pinned.side && at.index === this.pinned.index;
    this.pinned = same ? null : at;
    this.tell(this.pinned);
    if (at) this.rove(this.word(at.side, at.index));
  }

  /** Show and say what a word attends to, or what attends to it; null: nothing is pointed at. */
  tell(at) {
    this.at = at;
    this.light();
    if (!at) {
      this.explanation.replaceChildren(el("span", { class: "note" },
        "Point at a word, or move with Tab and the arrow keys, to see its attention; Enter pins it."));
      return;
    }
    const other = at.side === "target" ? "source" : "target";
    const lang = this.lang(other), text = this.grid[at.side][at.index];
    const weight = (i) => this.grid.towards(at.side, at.index)[i];
    const links = at.other === undefined ? this.grid.links(at.side, at.index, 4)
      : [[at.other, weight(at.other)]];
    const list = links.flatMap(([i, w], n) =>
      [n ? ", " : " ", quoted(this.grid[other][i], lang), ` ${percent(w)}`]);
    const verb = at.side === "target" ? "attends to" : "is attended to by";
    const chance = at.side === "target" && this.grid.probability
      ? ` Its probability was ${percent(this.grid.probability[at.index])}.` : "";
    this.explanation.replaceChildren(el("b", {}, quoted(text, this.lang(at.side))), ` ${verb}`,
      ...(list.length ? list : [" nothing in particular"]), `.${chance}`);
  }

  /** Colour words, ribbons and cells by the weights of the word that is pointed at. */
  light() {
    const at = this.at, weights = at ? this.grid.towards(at.side, at.index) : null;
    if (at) this.figure.dataset.points = at.side;
    else delete this.figure.dataset.points;
    for (const button of this.buttons ?? []) {
      const { side, index } = button.dataset, own = at && side === at.side;
      button.classList.toggle("on", Boolean(own && +index === at.index));
      button.style.setProperty("--w", at && !own ? weights[+index] : 0);
      const pin = this.pinned;
      button.setAttribute("aria-pressed", Boolean(pin && pin.side === side && pin.index === +index));
    }
    for (const mark of this.figure.querySelectorAll("[data-row]")) {
      const { row, column } = mark.dataset;
      mark.classList.toggle("on", Boolean(at && +(at.side === "target" ? row : column) === at.index));
    }
  }

  // Keys: one word of a figure is in the tab order, arrows move from there.

  rove(button) {
    for (const each of this.buttons) each.tabIndex = each === button ? 0 : -1;
  }

  key(event) {
    const { side, index } = event.target.dataset ?? {};
    if (!side) return;
    if (event.key === "Escape" && this.pinned) {
      this.pinned = null;
      this.light();
    }
    const across = this.form === "matrix" && side === "source";
    const [back, on] = across ? ["ArrowLeft", "ArrowRight"] : ["ArrowUp", "ArrowDown"];
    const last = this.grid[side].length - 1;
    const moves = { [back]: +index - 1, [on]: +index + 1, Home: 0, End: last };
    let to = moves[event.key] === undefined ? null : this.word(side, Math.min(last, Math.max(0, moves[event.key])));
    const other = { ArrowLeft: "source", ArrowRight: this.form === "matrix" ? "source" : "target",
      ArrowDown: "target", ArrowUp: "source" }[event.key];
    // To the other side along the strongest link.
    if (!to && other && other !== side) to = this.word(other, this.grid.links(side, +index, 1)[0]?.[0] ?? 0);
    if (!to) return;
    event.preventDefault();
    this.rove(to);
    to.focus();
  }
}

// A sentence in all runs, and the switches for all sentences -----------------------------------------

/** Return the panels of a sentence, one a run, side by side. */
function openSentence(sentence) {
  const made = data.runs.map((_, r) => new Panel(sentence, r));
  return el("div", { class: "panels" }, ...made.map((panel) => panel.node));
}

/** Remove the panels within a node. */
function closeSentence(node) {
  for (const panel of panels) if (node.contains(panel.node)) panel.close();
  node.replaceChildren();
}

function switches() {
  const change = (key) => (value) => {
    view[key] = value;
    for (const panel of panels) panel.show();
  };
  return el("div", { class: "switches" },
    choice("How attention is drawn", "form",
      [["auto", "Auto"], ["ribbons", "Ribbons"], ["matrix", "Matrix"], ["table", "Table"]], view.form, change("form")),
    choice("What is aligned", "unit", [["words", "Words"], ["pieces", "Pieces"]],
      view.unit, change("unit")));
}

/** Light or dark as the system says, until the reader says something else. */
function theme() {
  const system = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement;
  const button = el("button", { type: "button", onclick: () => {
    set(root.dataset.theme === "light");
    system.onchange = null;
  } });
  const set = (dark) => {
    root.dataset.theme = dark ? "dark" : "light";
    button.textContent = dark ? "Light" : "Dark";
  };
  system.onchange = () => set(system.matches);
  set(system.matches);
  return button;
}
