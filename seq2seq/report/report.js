// The report of runs around their translations: scores, fidelity, charts, and a list to search.

const app = document.getElementById("app");

// What every run is, and its scores ------------------------------------------------------------------

function summary() {
  const head = () => several ? ["", ...data.runs.map((_, r) => runName(r))] : null;
  const all = data.runs.flatMap((run) => run.scores);
  const scores = [...new Set(all.map((s) => s.name))].map((name) => [name, ...data.runs.map((run) => {
    const found = run.scores.find((s) => s.name === name);
    if (!found) return "\u2013";
    const range = found.low === null ? null
      : el("small", {}, ` ${fixed(found.low, 1)} to ${fixed(found.high, 1)}`);
    return el("span", {}, el("b", {}, fixed(found.value, 1)), range);
  })]);
  const facts = data.runs[0].facts.map(([name], i) =>
    [name, ...data.runs.map((run) => isolated(run.facts[i][1]))]);
  const signatures = [...new Set(all.map((s) => s.signature))].filter(Boolean);
  const notes = data.runs.flatMap((run, r) => run.notes.map((note) =>
    el("li", {}, ...(several ? [runName(r), ": "] : []), note)));
  return el("section", { "aria-labelledby": "summary" }, el("h2", { id: "summary" }, "Summary"),
    el("div", { class: "pair" },
      scores.length ? el("div", { class: "card" }, table("Scores on the test set", head(), scores, "numbers"),
        el("details", {}, el("summary", {}, "How they are computed"),
          el("p", { class: "note" }, "Small numbers: 95% intervals of a bootstrap."),
          el("ul", { class: "signatures" }, ...signatures.map((s) => el("li", {}, el("code", {}, s))))),
        notes.length ? el("ul", { class: "advice" }, ...notes) : null, ...rates())
        : el("p", { class: "card note" }, "Not scored yet: the evaluate stage has not run."),
      el("div", { class: "card" }, table("What was trained", head(), facts), ...files())));
}

/** Links to files of the run beside this page. */
function files() {
  return data.runs.flatMap(({ files }) => files.length
    ? [el("p", { class: "note files" }, "Files: ", ...files.flatMap((name, i) =>
      [i ? ", " : null, el("a", { href: name }, name)]))] : []);
}

/** What is wrong with a run as a whole, before anything else. */
function warnings() {
  return data.runs.flatMap((run, r) => run.warning
    ? [el("p", { class: "warning", role: "note" }, ...(several ? [runName(r), ": "] : []), run.warning)] : []);
}

/** Alignment error rates by layer and head, of runs that have them. */
function rates() {
  return data.runs.flatMap(({ rates: [first, ...rest] }, r) => first ? [el("details", {},
    el("summary", {}, "Alignment error rate by layer and head", ...(several ? [": ", runName(r)] : [])),
    table("Alignment error rate by layer and head",
      ["", ...first.slice(1).map((_, h) => `Head ${h + 1}`), "Mean"],
      [first, ...rest].map((row, l) =>
        [`Layer ${l + 1}`, ...row.map((rate) => `${fixed(100 * rate, 1)}\u202f%`)])))] : []);
}

/** How far attention may be believed: of each run that was asked, the reading and the numbers. */
function faithfulness() {
  const curves = ({ curves, shares }) => Object.entries(curves).filter(([, lines]) => lines.length)
    .map(([kind, lines]) => chart({ title: kind[0].toUpperCase() + kind.slice(1), bins: shares,
      y: "loss of probability, words removed", x: "of the source words, first in the ranking",
      series: lines.map(({ label, values }, run) => ({ run, label, points: values.map((v, i) => [i, v]) })) }));
  const cards = data.runs.flatMap(({ faithfulness: sheet }, r) => sheet ? [el("div", { class: "card" },
    several ? el("h3", {}, runName(r)) : null,
    el("ul", { class: "advice" }, ...sheet.reading.map((text) => el("li", {}, text))),
    el("details", {}, el("summary", {}, "Numbers"), el("p", { class: "note" }, sheet.legend),
      ...sheet.tables.map(({ head, rows }) => table(head[0], head, rows, "numbers")),
      el("div", { class: "charts" }, ...curves(sheet))))] : []);
  return cards.length ? el("section", { "aria-labelledby": "faithfulness" },
    el("h2", { id: "faithfulness" }, "How far to believe the attention"),
    el("div", { class: "pair" }, ...cards)) : null;
}

function fidelity() {
  const rows = data.fidelity.filter((point) => point.differs.some(Boolean));
  const line = (point) => [
    el("span", {}, point.point, point.note ? el("small", { class: "note" }, point.note) : null),
    ...point.here.map((text, r) => el("span", { class: point.differs[r] ? "differs" : null }, text)),
    point.paper ?? "silent", point.authors ?? "silent", point.source,
  ];
  const head = () => ["Point", ...data.runs.map((_, r) => several ? runName(r) : "This run"),
    "The paper", "The authors\u2019 code", "Where"];
  const many = rows.length === 1 ? "1 point differs" : `${rows.length} points differ`;
  return el("section", { "aria-labelledby": "fidelity" },
    el("h2", { id: "fidelity" }, "Against the paper"),
    el("details", {}, el("summary", {}, `${many} from the paper or the authors\u2019 code`),
      table("Deviations", head(), rows.map(line), "wide")),
    el("details", {}, el("summary", {}, `All ${data.fidelity.length} points`),
      table("All points", head(), data.fidelity.map(line), "wide")));
}

// Charts -----------------------------------------------------------------------------------------------

const BOX = { width: 400, height: 250, left: 40, right: 12, top: 10, bottom: 40 };

/** Round numbers within a range. */
function ticks(low, high) {
  const raw = (high - low || 1) / 4, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * power >= raw) * power;
  const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

const short = (v) => v >= 1000 ? `${+(v / 1000).toFixed(2)}k` : `${+v.toFixed(3)}`;

/** Map values to places in the box: {x, y} are functions, and the ends of the axes. */
function scales(points, { zero, bins }) {
  const ys = points.flatMap((p) => p.slice(1)), xs = points.map((p) => p[0]);
  const low = Math.min(...ys), high = Math.max(...ys), padding = (high - low || 1) / 12;
  const [left, right] = bins ? [-0.4, bins.length - 0.6] : [Math.min(0, ...xs), Math.max(1, ...xs)];
  const bottom = zero ? 0 : low - padding, top = high + padding;
  const across = BOX.width - BOX.left - BOX.right, up = BOX.height - BOX.top - BOX.bottom;
  return { left, right, bottom, top,
    x: (v) => BOX.left + ((v - left) / (right - left)) * across,
    y: (v) => BOX.height - BOX.bottom - ((v - bottom) / (top - bottom)) * up };
}

function axes(scale, { x, bins }) {
  const text = (attributes, content) => el("svg:text", attributes, content);
  const rows = ticks(scale.bottom, scale.top).flatMap((v) => [
    el("svg:line", { x1: BOX.left, x2: BOX.width - BOX.right, y1: scale.y(v), y2: scale.y(v) }),
    text({ x: BOX.left - 7, y: scale.y(v) + 4, "text-anchor": "end" }, short(v))]);
  const places = bins ? bins.map((name, i) => [i, name])
    : ticks(scale.left, scale.right).map((v) => [v, short(v)]);
  const columns = places.map(([v, name]) =>
    text({ x: scale.x(v), y: BOX.height - 22, "text-anchor": "middle" }, name));
  const name = text({ x: BOX.width - BOX.right, y: BOX.height - 4, "text-anchor": "end" }, x);
  return el("svg:g", { class: "axes" }, ...rows, ...columns, name);
}

function line(series, scale, aside, bins) {
  const path = series.points.map((p, i) => `${i ? "L" : "M"}${scale.x(p[0] + aside)},${scale.y(p[1])}`);
  const kind = `series run${series.run % 6}${series.dashed ? " dashed" : ""}`;
  const group = el("svg:g", { class: kind }, el("svg:path", { d: path.join("") }));
  for (const [x, value, low, high] of series.points) {
    const at = scale.x(x + aside);
    if (low !== undefined)
      group.append(el("svg:path", { class: "interval", d: `M${at},${scale.y(low)}V${scale.y(high)}` }));
    if (!series.dashed) group.append(el("svg:circle", { cx: at, cy: scale.y(value), r: 3 },
      el("svg:title", {}, `${series.label}, ${bins ? bins[x] : x}: ${fixed(value)}`)));
  }
  return group;
}

/** A series has run, label, points [x, y] or [x, y, low, high]; `bins` names x where it is not a number. */
function chart(options) {
  const { title, y, x, series, bins } = options;
  const points = series.flatMap((s) => s.points), scale = scales(points, options);
  const svg = el("svg:svg", { viewBox: `0 0 ${BOX.width} ${BOX.height}`, role: "img",
    "aria-label": `${title}; the numbers are in the table that follows` }, axes(scale, options));
  series.forEach((s, n) => {
    const aside = bins ? (n - (series.length - 1) / 2) * 0.1 : 0; // or intervals hide one another
    svg.append(line(s, scale, aside, bins));
  });
  const legend = el("ul", { class: "legend" }, ...series.map((s) => el("li", { class: `run${s.run % 6}` },
    el("i", { class: s.dashed ? "dashed" : null, "aria-hidden": "true" }), isolated(s.label))));
  const xs = [...new Set(points.map((p) => p[0]))].sort((a, b) => a - b);
  const rows = xs.map((at) => [bins ? bins[at] : String(at), ...series.map((s) => {
    const [, value, low, high] = s.points.find((p) => p[0] === at) ?? [];
    if (value === undefined) return "";
    return fixed(value) + (low === undefined ? "" : ` (${fixed(low, 1)} to ${fixed(high, 1)})`);
  })]);
  return el("figure", { class: "chart" }, el("figcaption", {}, el("b", {}, title), ` ${y}`),
    legend, svg, el("details", {}, el("summary", {}, "Numbers"),
      table(title, [x, ...series.map((s) => isolated(s.label))], rows, "numbers")));
}

function charts() {
  const label = (r, what, more) => several ? data.runs[r].name + (more ? `, ${what}` : "") : what;
  const each = (make) => data.runs.flatMap((run, r) => make(run, r)).filter((s) => s.points.length);
  const curve = (key, name, dashed) => (run, r) =>
    [{ run: r, label: label(r, name, true), dashed, points: run.curves[key] }];
  const loss = [...each(curve("training", "training", true)), ...each(curve("validation", "validation"))];
  const scores = [...each(curve("bleu", "BLEU")), ...each(curve("chrf", "chrF", true)),
    ...["exact_match", "character_error_rate", "symbol_error_rate"]
      .flatMap((key) => each(curve(key, key.replaceAll("_", " "))))];
  const bins = [...new Map(data.runs.flatMap((run) => run.lengths).sort((a, b) => a.first - b.first)
    .map((b) => [b.first, b.label])).values()];
  const lengths = each((run, r) => [{ run: r, label: label(r, "test set"),
    points: run.lengths.map((b) => [bins.indexOf(b.label), b.bleu, b.low, b.high]) }]);
  const drawn = [
    loss.length ? chart({ title: "Loss", y: "nats per target token", x: "updates", series: loss }) : null,
    scores.length ? chart({ title: "Scores while training", y: "on the validation set", x: "updates",
      zero: true, series: scores }) : null,
    lengths.length ? chart({ title: "BLEU by source length", y: "bars: 95% intervals",
      x: `${data.runs[0].lengthUnit} in the source`, zero: true, series: lengths, bins }) : null];
  return drawn.some(Boolean) ? el("section", { "aria-labelledby": "curves" },
    el("h2", { id: "curves" }, "How it learned"), el("div", { class: "charts" }, ...drawn)) : null;
}

// The list of sentences ----------------------------------------------------------------------------------

const KEYS = {
  number: ["Number", (s) => s.number],
  score: ["Score", (s, r) => s.runs[r].found[0].score],
  length: ["Length", (s) => s.length],
  entropy: ["Entropy", (s, r) => s.runs[r].found[0].entropy],
  coverage: ["Coverage", (s, r) => s.runs[r].found[0].coverage],
  chrf: ["chrF", (s, r) => s.runs[r].found[0].chrf],
};

/** Turn `dog length>12 entropy<1` into a test of a sentence. */
function matcher(query, r) {
  const tests = query.toLocaleLowerCase().split(/\s+/).filter(Boolean).map((word) => {
    const [, key, sign, number] = word.match(/^([a-z]+)([<>])(-?\d*\.?\d+)%?$/) ?? [];
    if (!(key in KEYS)) return (s) => s.text.includes(word);
    const bound = word.endsWith("%") ? number / 100 : +number;
    return (s) => {
      const value = KEYS[key][1](s, r);
      return value !== null && (sign === ">" ? value > bound : value < bound);
    };
  });
  return (sentence) => tests.every((test) => test(sentence));
}

/** A sentence in the list: what it says, and behind a button its attention. */
class Item {
  constructor(sentence) {
    this.sentence = sentence;
    const texts = sentence.runs.flatMap((run) => [run.reference, ...run.found.map((f) => f.text),
      ...Object.keys(run.found[0].flags).map((flag) => `flag:${flag}`)]);
    sentence.text = [sentence.source, ...texts].join("\n").toLocaleLowerCase();
    const { source } = sentence.runs[0].languages, id = `s${sentence.number}`;
    this.inside = el("div", { id: `${id}-attention`, hidden: true });
    this.button = el("button", { type: "button", class: "more", "aria-expanded": "false",
      "aria-controls": this.inside.id, onclick: () => this.toggle() }, "Attention");
    const row = (name, text, lang, kind) => el("div", { class: kind }, el("dt", {}, name),
      el("dd", { dir: "auto", lang: lang ?? "" }, text));
    const outputs = sentence.runs.flatMap(({ found: [best], languages }, r) => {
      const flags = Object.entries(best.flags).map(([flag, meaning]) => `${flag} (${meaning})`);
      return [row(several ? runName(r) : "Output", best.text || "(nothing)", languages.target),
        flags.length ? row("Flags", flags.join("; "), "en", "flags") : null];
    });
    // Runs may translate into different languages.
    const references = new Map(sentence.runs.map((run) => [run.reference, run.languages.target]));
    this.node = el("article", { id, "aria-labelledby": `${id}-title` },
      el("header", {}, el("h3", { id: `${id}-title` }, `Sentence ${sentence.number}`), this.button),
      el("dl", { class: "texts" }, row("Source", sentence.source, source), ...outputs.filter(Boolean),
        ...[...references].map(([text, lang]) => row("Reference", text, lang, "reference"))), this.inside);
  }

  toggle() {
    const open = this.inside.hidden;
    this.button.setAttribute("aria-expanded", open);
    this.inside.hidden = !open;
    if (open) this.inside.append(openSentence(this.sentence));
    else closeSentence(this.inside);
  }
}

function translations() {
  const items = data.sentences.map((sentence) => new Item(sentence));
  const list = el("div", { class: "list" }), status = el("p", { class: "note", role: "status" });
  const search = el("input", { type: "search", id: "search", placeholder: "word, length>12, entropy<1",
    oninput: () => update() });
  const sort = el("select", { id: "sort", onchange: () => update() },
    ...Object.entries(KEYS).map(([key, [name]]) => el("option", { value: key }, name)));
  const order = el("button", { type: "button", "aria-pressed": "false", onclick: () => {
    order.setAttribute("aria-pressed", order.getAttribute("aria-pressed") === "false");
    update();
  } }, "Descending");
  const which = el("select", { id: "of-run", onchange: () => update() },
    ...data.runs.map((run, r) => el("option", { value: r }, run.name)));
  const update = () => {
    const r = +which.value, down = order.getAttribute("aria-pressed") === "true" ? -1 : 1;
    const shown = items.filter((item) => matcher(search.value, r)(item.sentence));
    const value = (item) => KEYS[sort.value][1](item.sentence, r) ?? -Infinity;
    shown.sort((a, b) => down * (value(a) - value(b)) || a.sentence.number - b.sentence.number);
    list.replaceChildren(...shown.map((item) => item.node));
    status.textContent = `${shown.length} of ${items.length} sentences`;
  };
  const field = (id, name, input) => el("div", { class: "field" }, el("label", { for: id }, name), input);
  update();
  return el("section", { "aria-labelledby": "translations" },
    el("h2", { id: "translations" }, "Translations"),
    el("p", { class: "note" }, "Search finds text in source, reference and every translation, and "
      + "flag: or a flag such as flag:long; "
      + "number, score, length, entropy, coverage and chrf take < and >. Length is that of the source."),
    el("div", { class: "tools" }, field("search", "Search", search), field("sort", "Sort by", sort), order,
      several ? field("of-run", "of run", which) : null, switches()),
    status, list);
}

app.append(el("header", { class: "top" },
  el("div", {}, el("p", { class: "note" }, several ? "Runs side by side" : "Report of a run"),
    el("h1", {}, isolated(data.title))), theme()));
app.append(...[...warnings(), summary(), charts(), faithfulness(), fidelity(), translations()].filter(Boolean));
const first = document.querySelector("article .more");
if (first) first.click();
