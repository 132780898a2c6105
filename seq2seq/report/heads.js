// Which attention of a model with layers and heads is shown: a picker in each panel of its run.

/** Which text the two sides of a picture are: "source" is what is attended to, "target" attends. */
const MAPS = {
  heads: { name: "To source", sides: { source: "source", target: "target" },
    titles: { source: "Source", target: "Target" } },
  encoder: { name: "Within source", sides: { source: "source", target: "source" },
    titles: { source: "Attended to", target: "Attends" } },
  decoder: { name: "Within target", sides: { source: "target", target: "target" },
    titles: { source: "Attended to", target: "Attends" } },
};
const START = "(start)";

// Of each run: the kind that is shown, and of each kind the layer (null: the last) and the head
// (null: the mean of all), which count from 1.
const picks = data.runs.map((run) =>
  ({ kind: "heads", heads: run.shown, encoder: [null, null], decoder: [null, null] }));

/** Labels and weights of a kind at a level, for the layer and head that were picked. */
function picked(level, kind, [layer, head]) {
  const { shape: [layers, heads, rows, columns], weights } = level.maps[kind];
  const all = unpack(weights, layers * heads * rows, columns);
  const first = ((layer ?? layers) - 1) * heads, { sides } = MAPS[kind];
  const rowsOf = (h) => all.slice((first + h) * rows, (first + h + 1) * rows);
  const each = Array.from({ length: heads }, (_, h) => rowsOf(h));
  const mean = (i, j) => each.reduce((sum, of) => sum + of[i][j], 0) / heads;
  return {
    // The start comes before what is attended to within a translation, its end does not.
    source: kind === "decoder" ? [START, ...level.target].slice(0, columns) : level[sides.source],
    target: level[sides.target],
    probability: kind === "encoder" ? null : level.probability,
    weights: head ? rowsOf(head - 1)
      : Array.from({ length: rows }, (_, i) => Float32Array.from({ length: columns }, (_, j) => mean(i, j))),
  };
}

/** The controls of a panel; what they choose holds for all panels of the run. */
class Picker {
  constructor(panel, r, id) {
    this.pick = picks[r];
    this.run = data.runs[r];
    this.maps = panel.found[0].words.maps ?? {};
    this.label = panel.found[0].label;
    // What stands for all heads is there always, whether it has heads or not.
    const kinds = Object.keys(MAPS).filter((kind) => kind === "heads" || kind in this.maps);
    const refresh = (keep) => {
      for (const each of panels) if (each.picker?.pick === this.pick) each.show(keep ? each.pinned : null);
    };
    this.radios = choice("Which attention is shown", `${id}-kind`, kinds.map((k) => [k, MAPS[k].name]),
      this.pick.kind, (kind) => {
        this.pick.kind = kind;
        refresh(false);
      });
    this.select = el("select", { id: `${id}-head`, onchange: () => {
      this.pick[this.pick.kind] = this.select.value.split(".").map((n) => +n || null);
      refresh(true);
    } });
    this.note = el("p", { class: "note" });
    this.field = el("div", { class: "field" }, el("label", { for: this.select.id }, "Layer and head"),
      this.select);
    this.node = el("div", { class: "picker" },
      ...(Object.keys(this.maps).length ? [kinds.length > 1 ? this.radios : null, this.field] : []),
      this.note);
  }

  /** What is shown of a translation at a level: see `picked`; null: it has no layers and heads here. */
  show(level) {
    const { pick, select } = this, maps = level.maps ?? {}, there = pick.kind in maps;
    const kind = there ? pick.kind : "heads", any = Object.keys(maps).length > 0;
    for (const radio of this.radios.querySelectorAll("input")) {
      radio.checked = radio.value === kind;
      radio.disabled = !any;
    }
    select.disabled = !there;
    this.field.hidden = !(kind in this.maps); // weights without heads
    const whole = data.withHeads === null || data.withHeads === undefined ? ""
      : data.withHeads ? ` of the first ${data.withHeads} sentences` : " of shorter sentences";
    this.note.textContent = any ? "" : `Layers and heads can be chosen for \u201c${this.label}\u201d`
      + `${whole}, to keep this page small.`;
    if (kind in this.maps) this.list(kind, there ? pick[kind] : this.run.shown);
    return there ? picked(level, kind, pick[kind]) : null;
  }

  /** Fill the list with the layers and heads that there are of a kind. */
  list(kind, [layer, head]) {
    const { select } = this, [layers, heads] = this.maps[kind].shape;
    const name = (h) => h ? `head ${h}` : "mean of heads";
    if (this.listed !== kind) select.replaceChildren(...Array.from({ length: layers }, (_, l) =>
      el("optgroup", { label: `Layer ${l + 1}` }, ...Array.from({ length: heads + 1 }, (_, h) =>
        el("option", { value: `${l + 1}.${h}` }, `Layer ${l + 1}, ${name(h)}`)))));
    this.listed = kind;
    select.value = `${layer ?? layers}.${head ?? 0}`;
  }

  /** Whether that is what stands for all: whose entropy and coverage are shown. */
  get usual() {
    const [first, kind] = [this.maps.heads, this.pick.kind], [layer, head] = this.run.shown;
    return kind === "heads"
      && (!first || this.select.value === `${layer ?? first.shape[0]}.${head ?? 0}`);
  }

  /** What is picked, in words. */
  get text() {
    const { name } = MAPS[this.pick.kind];
    return `${name}, ${this.select.selectedOptions[0].text}`.toLowerCase();
  }
}
