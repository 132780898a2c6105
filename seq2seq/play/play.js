// A page on which to question models: a sentence is typed, and everything else follows from it.
// Words and their attention are those of the report (attention.js).

const page = Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join("");

/** Ask the server; an older question of the same kind is given up. */
class Asker {
  constructor(r) {
    this.run = r;
    this.open = {};
  }

  /** Return the answer, or null if a newer question has taken its place. */
  async ask(kind, question) {
    this.open[kind]?.abort();
    const own = this.open[kind] = new AbortController();
    try {
      const response = await fetch(kind, { method: "POST", signal: own.signal,
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ run: this.run, page, ...question }) });
      const answer = await response.json();
      if (answer.error) throw new Error(answer.error);
      return own.signal.aborted || answer.superseded ? null : answer;
    } catch (error) {
      if (own.signal.aborted) return null;
      throw error instanceof TypeError ? new Error("The server does not answer. Is it still running?") : error;
    }
  }
}

/** Return where each word, or character, of a text is; undefined for what the text does not have as such. */
function locate(text, words, hasWords) {
  let from = 0;
  return words.map((word) => {
    const plain = word.replace(/^\u2581/, "") || (hasWords ? "" : " "), at = plain ? text.indexOf(plain, from) : -1;
    if (at < 0) return undefined;
    from = at + plain.length;
    return [at, from];
  });
}

// One run -------------------------------------------------------------------------------------------

/** Attention to point at, where a chosen word opens what can be done with it. */
class Played extends Panel {
  constructor(sentence, r, side) {
    super(sentence, r);
    this.side = side;
  }

  pin(event) {
    super.pin(event);
    this.side.open(this.pinned);
  }

  key(event) {
    super.key(event);
    if (event.key === "Escape") this.side.open(null);
  }
}

/** The translations of a run, and questions about them. */
class Side {
  constructor(r) {
    this.run = data.runs[r];
    this.r = r;
    this.asker = new Asker(r);
    this.prefix = "";
    this.turn = 0;
    this.output = el("p", { class: "output", dir: "auto" });
    this.state = el("span", { class: "note" });
    this.forced = el("p", { class: "forced", hidden: true });
    this.error = el("p", { class: "warning", role: "alert", hidden: true });
    this.menu = el("div", { class: "menu", role: "group" });
    this.menu.addEventListener("keydown", (event) => this.key(event));
    this.figure = el("div");
    this.language = this.languages();
    this.node = el("section", { class: "side", "aria-label": `Translation of ${this.run.name}` },
      el("h2", {}, several ? runName(r) : "Translation", " ", this.state), this.language,
      this.output, this.forced, this.error, this.figure);
  }

  languages() {
    if (!this.run.languages.length) return null;
    const id = `language-${this.r}`, select = el("select", { id, onchange: () => this.translate(this.source) },
      ...this.run.languages.map((code) => el("option", { value: code }, code)));
    select.value = this.run.language ?? this.run.languages[0];
    return el("div", { class: "field" }, el("label", { for: id }, "Language"), select);
  }

  get question() {
    const language = this.language?.querySelector("select").value ?? null;
    return { source: this.source, prefix: this.prefix, language };
  }

  /** Show what the server answers, unless there is a newer sentence. */
  async wait(kind, question, show) {
    const { turn } = this;
    try {
      const answer = await this.asker.ask(kind, question);
      if (answer !== null && turn === this.turn) show(answer);
    } catch (error) {
      if (turn === this.turn) this.fail(error.message);
    }
  }

  fail(message) {
    this.error.textContent = message;
    this.error.hidden = false;
    this.state.textContent = "";
  }

  /** Translate a sentence: at first quickly, then as `decode` does. */
  async translate(source, prefix = "") {
    this.source = source;
    this.prefix = prefix;
    this.turn++;
    this.open(null);
    if (this.panel) this.panel.pinned = null;
    this.error.hidden = true;
    const release = el("button", { type: "button", onclick: () => this.translate(this.source) }, "Let it choose again");
    this.forced.replaceChildren("Begins with ", quoted(prefix, this.lang), ". ", release);
    this.forced.hidden = !prefix;
    if (!source.trim()) {
      this.clear();
      return;
    }
    this.state.textContent = "\u2026";
    let final = false;
    await Promise.all([
      this.wait("quick", this.question, (answer) => final || this.show(answer, "provisional")),
      this.wait("full", this.question, (answer) => {
        final = true;
        this.show(answer, this.run.search);
        say(`${several ? `${this.run.name}: ` : ""}${answer.text}`);
      }),
    ]);
  }

  clear() {
    this.output.replaceChildren();
    this.state.textContent = "";
    this.panel?.close();
    this.panel = null;
    this.figure.replaceChildren();
  }

  show(answer, state) {
    const at = document.activeElement, focused = this.figure.contains(at) ? { ...at.dataset } : null;
    const held = this.panel?.pinned ?? null, same = this.answer?.text === answer.text;
    this.answer = answer;
    this.lang = answer.languages.target;
    this.output.lang = this.lang ?? "";
    this.output.textContent = answer.text;
    this.output.classList.toggle("provisional", state === "provisional");
    this.state.textContent = state;
    this.panel?.close();
    this.panel = null;
    if (!answer.found.length) {
      this.figure.replaceChildren(el("p", { class: "note" }, "Nothing was translated."));
      return;
    }
    const sentence = { number: 1, source: this.source, runs: [] };
    sentence.runs[this.r] = { found: answer.found, languages: answer.languages };
    this.panel = new Played(sentence, this.r, this);
    this.panel.node.querySelector(".inside").append(this.menu);
    this.figure.replaceChildren(this.panel.node);
    if (same && held) this.panel.show(held);
    else this.open(null);
    if (focused?.side) {
      const word = this.panel.word(focused.side, focused.index) ?? this.panel.word("target", 0);
      this.panel.rove(word);
      word.focus();
    }
  }

  // What can be done with a word.

  /** Open the menu of a word, {side, index}; null closes it. */
  open(at) {
    this.menu.replaceChildren();
    this.at = at;
    if (!at || !this.panel) return;
    const grid = this.panel.grid, text = grid[at.side][at.index], which = grid.sides[at.side];
    this.menu.setAttribute("aria-label", `What can be done with ${text}`);
    if (text === "</s>" || text === START) return;
    const places = locate(which === "source" ? this.source : this.answer.text, grid[at.side], this.run.hasWords);
    if (places[at.index] === undefined) return;
    if (which === "source") this.sourceMenu(text, places[at.index]);
    else if (this.run.canForce) this.targetMenu(text, places[at.index]);
    else this.menu.append(el("p", { class: "note" }, "This model cannot be made to begin with given words."));
  }

  sourceMenu(word, [start, end]) {
    const { source } = this, before = source.slice(0, start), after = source.slice(end);
    const { hasWords } = this.run, gap = hasWords && (/\s$/.test(before) || /^\s/.test(after)) ? " " : "";
    const dropped = hasWords ? (before.trimEnd() + gap + after.trimStart()).trim() : before + after;
    const button = (label, text) => el("button", { type: "button", onclick: () => type(text) }, label);
    this.menu.append(el("h3", {}, quoted(word, this.answer.languages.source), " in the sentence"),
      el("div", { class: "choices" },
        button("Drop it", dropped),
        button("Repeat it", `${before}${source.slice(start, end)}${gap}${source.slice(start)}`)));
  }

  async targetMenu(word, [start]) {
    const question = { ...this.question, prefix: this.answer.text.slice(0, start) };
    const list = el("div", { class: "choices", "aria-busy": "true" }, el("p", { class: "note" }, "\u2026"));
    this.menu.append(el("h3", {}, "In place of ", quoted(word, this.lang)), list);
    await this.wait("alternatives", question, ({ alternatives }) => {
      list.replaceChildren(...alternatives.map((other) => el("button", { type: "button", class: "other",
        title: other.text, onclick: () => this.translate(this.source, other.prefix) }, ...this.chance(other))));
      list.removeAttribute("aria-busy");
      if (!alternatives.length) list.append(el("p", { class: "note" }, "No other word is possible."));
      else if (this.run.canChange) this.menu.append(...this.changes(question, alternatives[0]));
    });
    if (this.run.hasText) await this.wait("nearest", question, ({ nearest }) => this.menu.append(...this.places(nearest)));
    this.panel?.word(this.at?.side, this.at?.index)?.scrollIntoView({ block: "nearest" }); // not behind the menu
  }

  /** Where the training text is most like the translation up to a word. */
  places(nearest) {
    const { source, target } = this.answer.languages;
    const open = !several && matchMedia("(min-width: 60rem)").matches; // there is room for it
    return nearest.length ? [el("details", { open }, el("summary", {}, el("h3", {}, "Nearest in the training text")),
      el("ul", { class: "places" }, ...nearest.map((place) => el("li", {},
        el("p", { dir: "auto", lang: target ?? "" }, place.before, el("mark", {}, place.word), place.after),
        el("p", { class: "note" }, isolated(place.source, source), ` \u00b7 cosine ${fixed(place.cosine)}`)))))] : [];
  }

  /** A word and how sure the model is of it. */
  chance({ word, probability }) {
    return [isolated(word, this.lang), " ", el("span", { class: "value" },
      probability < 0.01 ? `${+(100 * probability).toPrecision(1)}\u202f%` : percent(probability))];
  }

  /** Controls of what the model attends to when it says a word, and what it says then. */
  changes(question, usual) {
    const told = el("p", { class: "told", "aria-live": "polite" });
    const ask = (change, to, how) => {
      told.textContent = "\u2026";
      return this.wait("intervene", { ...question, change, to }, ({ alternatives }) => show(alternatives, how));
    };
    const show = (alternatives, how) => {
      const [first, ...rest] = alternatives;
      told.replaceChildren(`${how}, it says `, el("b", {}, ...this.chance(first)),
        ...(first.word === usual.word ? [", as before"] : [", no longer ", ...this.chance(usual)]),
        "; next come", ...rest.flatMap((other, n) => [n ? ", " : " ", ...this.chance(other)]), ". ",
        el("span", { class: "note", dir: "auto", lang: this.lang ?? "" }, first.text));
    };
    const button = (label, change, how) =>
      el("button", { type: "button", onclick: () => ask(change, 0, how) }, label);
    const words = this.answer.found[0].words.source, id = `move-${this.r}`;
    const select = el("select", { id, onchange: () => {
      const to = +select.value;
      ask("move", to, `With all attention on \u201c${words[to]}\u201d`);
    } }, el("option", { disabled: true, selected: true }, "Move to\u2026"),
    ...words.map((word, j) => el("option", { value: j }, word)));
    return [el("h3", {}, "With other attention at this word"), el("div", { class: "choices" },
      button("Flatten", "flatten", "With equal attention on all words"),
      button("Permute", "permute", "With its attention permuted"),
      el("label", { class: "hidden", for: id }, "Move all attention to"), select), told];
  }

  /** Keys in the menu: arrows move, Escape goes back to the word. */
  key(event) {
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape" && this.at) {
      const word = this.panel.word(this.at.side, this.at.index);
      this.panel.pinned = null;
      this.open(null);
      word.focus();
    } else if (step && event.target.tagName === "BUTTON") {
      const all = [...this.menu.querySelectorAll("button")], i = all.indexOf(event.target) + step;
      all[Math.max(0, Math.min(all.length - 1, i))].focus();
      event.preventDefault();
    }
  }
}

// The page ------------------------------------------------------------------------------------------

const sides = data.runs.map((_, r) => new Side(r));
const spoken = el("p", { class: "hidden", role: "status" });
const input = el("textarea", { id: "source", rows: 2, dir: "auto", maxlength: data.most, spellcheck: false,
  autocomplete: "off", placeholder: "Type a sentence", lang: data.runs[0].source ?? "" });

/** Tell a screen reader, and nobody else. */
function say(text) {
  spoken.textContent = text;
}

/** Put a sentence into the box, as if it were typed. */
function type(text) {
  input.value = text;
  translate();
}

function translate() {
  const source = input.value.replace(/[\r\n]+/g, " ");
  for (const side of sides) if (source !== side.source) side.translate(source);
}

input.addEventListener("input", (event) => event.isComposing || translate());
input.addEventListener("compositionend", translate);
input.addEventListener("keydown", (event) => {
  if (event.key === "Enter") event.preventDefault(); // a sentence is a line
});
document.getElementById("app").append(
  el("header", { class: "top" }, el("h1", {}, ...(several ? ["Two models, one sentence"] : [isolated(data.runs[0].name)])),
    theme()),
  el("div", { class: "ask" }, el("label", { for: "source" }, "Sentence"), input),
  el("div", { class: "tools" }, el("p", { class: "note" }, "Choose a word by a click or Enter: a word of the "
    + "translation to take another one, a word of the sentence to drop or repeat it."), switches()),
  el("div", { class: "sides" }, ...sides.map((side) => side.node)), spoken);
input.focus();
