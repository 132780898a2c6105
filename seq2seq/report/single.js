// One translation alone: `translation.to_html()`.

const [sentence] = data.sentences, shown = sentence.runs[0].found.length
  ? [el("div", { class: "tools" }, switches()), openSentence(sentence)]
  : [el("p", { class: "note" }, "Nothing was translated: the line is empty.")];
document.getElementById("app").append(
  el("header", { class: "top" }, el("p", { dir: "auto", lang: "" }, sentence.source), theme()), ...shown);
