// An editor of gold links: a sentence pair at a time, a matrix with a button for each pair of words.
// Nothing leaves the page but the file that the reader saves.

const KINDS = ["no link", "sure", "possible"]; // of a link, by number, as in gold.py
const SIGNS = ["", "\u25cf", "\u25cb"], MARKS = ["", "-", "?"]; // as shown, and in Pharaoh format
const RIGHT_TO_LEFT = /^\P{L}*[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const direction = (words) => RIGHT_TO_LEFT.test(words.join(" ")) ? "rtl" : "ltr";

/** Links of all sentences as kinds, by source word and target word: one array of rows each. */
const kinds = data.sentences.map(({ source, target, links }) => {
  const rows = target.map(() => source.map(() => 0));
  for (const [i, j, kind] of links) rows[j][i] = kind;
  return rows;
});
let shown = 0, saved = true; // the sentence; whether the file has all changes

/** All links as a line for each sentence, `0-0 2?1`, sorted by source word. */
function pharaoh() {
  return data.sentences.map(({ source }, n) => `${source.flatMap((_, i) =>
    kinds[n].flatMap((row, j) => row[i] ? [`${i}${MARKS[row[i]]}${j}`] : [])).join(" ")}\n`).join("");
}

function save() {
  const href = URL.createObjectURL(new Blob([pharaoh()], { type: "text/plain" }));
  el("a", { href, download: data.file }).click();
  saved = true;
  setTimeout(() => URL.revokeObjectURL(href), 60000);
}

// One sentence ---------------------------------------------------------------------------------------

const figure = el("div", { class: "card attention matrix gold" });
const counts = el("p", { class: "note", role: "status" });
const explanation = el("p", { class: "explanation", "aria-live": "polite" });

function word(side, index) {
  return el("span", { class: "word", "data-side": side, "data-index": index },
    isolated(data.sentences[shown][side][index]));
}

function draw() {
  const { source, target } = data.sentences[shown];
  const head = source.map((_, i) => el("th", { scope: "col" }, word("source", i)));
  const rows = target.map((_, j) => el("tr", {}, el("th", { scope: "row" }, word("target", j)),
    ...source.map((_, i) => el("td", {},
      el("button", { type: "button", tabindex: i || j ? "-1" : "0", "data-row": j, "data-column": i })))));
  figure.replaceChildren(source.length && target.length
    ? el("div", { class: "scroll" }, el("table", { dir: direction(source) },
      el("caption", { class: "hidden" }, "Links: target words down, source words across"),
      el("thead", {}, el("tr", {}, el("td"), ...head)), el("tbody", {}, ...rows)))
    : el("p", { class: "note" }, "A side is empty: there is nothing to link."));
  figure.querySelectorAll("button").forEach(name);
  previous.disabled = !shown;
  next.disabled = shown === data.sentences.length - 1;
  number.value = shown + 1;
  explanation.replaceChildren(el("span", { class: "note" }, "Click, or move with the arrow keys and "
    + "press Space: a link is sure (\u25cf), then possible (\u25cb), then none. Sure: everybody would "
    + "link these words. Possible: some would."));
  count();
}

const place = (button) => [+button.dataset.row, +button.dataset.column];

/** Show and name the kind of the link of a button. */
function name(button) {
  const [j, i] = place(button), { source, target } = data.sentences[shown], kind = kinds[shown][j][i];
  button.textContent = SIGNS[kind];
  button.dataset.kind = kind;
  button.setAttribute("aria-label", `\u201c${source[i]}\u201d, \u201c${target[j]}\u201d: ${KINDS[kind]}`);
}

function count() {
  const all = kinds[shown].flat(), { source } = data.sentences[shown];
  const alone = source.filter((_, i) => kinds[shown].every((row) => !row[i])).length
    + kinds[shown].filter((row) => !row.some(Boolean)).length;
  counts.textContent = `${all.filter((kind) => kind === 1).length} sure, `
    + `${all.filter((kind) => kind === 2).length} possible; ${alone} words without a link`;
}

/** Say which words a button links, and light them. */
function tell(button) {
  const [j, i] = place(button), { source, target } = data.sentences[shown];
  explanation.replaceChildren(quoted(source[i]), " and ", quoted(target[j]), `: ${KINDS[kinds[shown][j][i]]}`);
  for (const { dataset, classList } of figure.querySelectorAll(".word"))
    classList.toggle("on", +dataset.index === (dataset.side === "source" ? i : j));
}

const on = (type, act) => figure.addEventListener(type, (event) => {
  const button = event.target.closest("button");
  if (button) act(button, event);
});

on("mouseover", tell);
on("focusin", tell);
on("click", (button) => {
  const [j, i] = place(button);
  kinds[shown][j][i] = (kinds[shown][j][i] + 1) % KINDS.length;
  saved = false;
  name(button);
  rove(button);
  tell(button);
  count();
});

/** One button of the matrix is in the tab order. */
function rove(button) {
  for (const each of figure.querySelectorAll("[tabindex='0']")) each.tabIndex = -1;
  button.tabIndex = 0;
}

on("keydown", (button, event) => {
  const [j, i] = place(button), { source, target } = data.sentences[shown];
  const ahead = direction(source) === "rtl" ? -1 : 1;
  const to = { ArrowUp: [j - 1, i], ArrowDown: [j + 1, i], ArrowRight: [j, i + ahead],
    ArrowLeft: [j, i - ahead], Home: [j, 0], End: [j, source.length - 1] }[event.key];
  if (!to) return;
  event.preventDefault();
  if (to[0] < 0 || to[0] >= target.length || to[1] < 0 || to[1] >= source.length) return;
  const other = figure.querySelector(`[data-row="${to[0]}"][data-column="${to[1]}"]`);
  rove(other);
  other.focus();
});

// The page -------------------------------------------------------------------------------------------

function go(to) {
  shown = Math.min(Math.max(to, 0), data.sentences.length - 1);
  draw();
}

const previous = el("button", { type: "button", onclick: () => go(shown - 1) }, "Previous");
const next = el("button", { type: "button", onclick: () => go(shown + 1) }, "Next");
const number = el("input", { type: "number", id: "number", min: 1, max: data.sentences.length,
  onchange: () => go(Math.round(+number.value) - 1) });

addEventListener("beforeunload", (event) => {
  if (!saved) event.preventDefault();
});
document.getElementById("app").append(
  el("header", { class: "top" }, el("h1", {}, "Gold links"), theme()),
  ...(data.sentences.length ? [
    el("div", { class: "tools" }, previous, el("div", { class: "field" },
      el("label", { for: "number" }, `Sentence, of ${data.sentences.length}`), number), next,
    el("button", { type: "button", id: "save", onclick: save }, "Save ", isolated(data.file))),
    explanation, counts, figure] : [el("p", { class: "note" }, "There are no sentences.")]));
if (data.sentences.length) draw();
