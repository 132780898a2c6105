"""The command line. An older Python must be able to parse this module."""

COMMANDS = {
    "train": ("seq2seq.cli.train", "train a model, or resume; then translate and score"),
    "fetch": ("seq2seq.cli.fetch", "download a public corpus, checked by checksums"),
    "decode": ("seq2seq.cli.decode", "translate lines of text"),
    "evaluate": ("seq2seq.cli.evaluate", "score runs, or files: BLEU, chrF, TER; compare runs"),
    "report": ("seq2seq.cli.report", "write report.html, with interactive attention"),
    "play": ("seq2seq.cli.play", "open a page on which to question a model"),
    "score": ("seq2seq.cli.score", "score given translations; align words"),
    "rerank": ("seq2seq.cli.rerank", "choose from n-best lists with other models"),
    "augment": ("seq2seq.cli.augment", "translate monolingual text to make training pairs"),
    "export": ("seq2seq.cli.export", "write a model for the Hub, onnxruntime or CTranslate2"),
    "runs": ("seq2seq.cli.runs", "list runs with state and score"),
    "config": ("seq2seq.cli.config", "show the settings of a run"),
    "verify": ("seq2seq.cli.verify", "check the files of a run against their checksums"),
    "compare": ("seq2seq.cli.compare_runs", "check whether two runs are equal, bit for bit"),
}
"""Name of a command -> its module, which has `main(argv)`, and what it does."""
