"""Points of data and training: sections 4.1 and 4.2, B.2, Table 2, the authors' trainer."""

from seq2seq.fidelity.point import Point, Says, Values, choice, fixed, named, says, value, written

PROTOTYPES = "state.py"
TRAINER = "trainer/SGD_adadelta.py"


def _corpus(values: Values) -> str:
    text = written(values["data.train"])
    if "embedded" in values["data.train"]:
        group = "data.grammar."
        parts = [
            f"{key.removeprefix(group)} {written(one)}"
            for key, one in values.items()
            if key.startswith(group)
        ]
        text += f" ({', '.join(parts)})"
    return text


def _languages(values: Values) -> str:
    return f"{values['data.source_language']}-{values['data.target_language']}"


def _ratio(values: Values) -> str:
    ratio = values["data.max_ratio"]
    return "none" if ratio >= values["data.max_words"] else f"over {written(ratio)}"


def _limit(values: Values) -> str:
    limit = values["data.limit"]
    return "all" if limit is None else f"the first {limit:,}"


def _vocabulary_size(values: Values) -> str:
    size = values["tokenizer.vocab_size"]
    return "as many ids as the text gives" if size is None else f"{size:,} ids"


def _batch(values: Values) -> str:
    if values["trainer.batch_sentences"] is not None:
        return f"{values['trainer.batch_sentences']} sentences"
    return f"{values['trainer.batch_tokens']:,} tokens"


def _model(values: Values) -> str:
    return "RNNencdec" if values["attention.name"] == "fixed" else "RNNsearch"


def _pool(values: Values) -> str:
    return f"{values['trainer.pool_batches']} batches ({_model(values)})"


def _updates(values: Values) -> str:
    return f"{values['trainer.max_updates']:,} ({_model(values)}-{values['data.max_words']})"


def _early_stopping(values: Values) -> str:
    if values["trainer.patience"] is None:
        return "none"
    return f"once validation improves no more ({_model(values)}-{values['data.max_words']})"


def _patience(values: Values) -> str:
    patience = values["trainer.patience"]
    what = values["trainer.select_by"]
    return "none" if patience is None else f"{patience} validations without a better {what}"


def _selection(values: Values) -> str:
    sentences = values["trainer.validation_sentences"]
    how = ""
    if values["trainer.select_by"] == "bleu":
        of = "all" if sentences is None else f"{sentences:,}"
        how = f" of {of} sentences, beam {values['trainer.validation_beam']}"
    every = f"{values['trainer.validate_every']:,}"
    return f"best {values['trainer.select_by']}{how}, looked at every {every} updates"


def _rule(values: Values) -> str:
    return named("optimizer", "lr", "weight_decay")(values)


DATA_POINTS = (
    Point(
        name="languages",
        keys=("data.source_language", "data.target_language"),
        here=_languages,
        paper=says("en-fr"),
        authors=None,
        source="4.1",
    ),
    Point(
        name="training corpus",
        keys=("data.train", "data.grammar.*"),
        here=_corpus,
        paper=Says("348M words selected from WMT14", ()),
        authors=None,
        source="4.1",
    ),
    Point(
        name="validation set",
        keys=("data.validation",),
        here=value("data.validation"),
        paper=says("sacrebleu:wmt12+wmt13", text="newstest2012 and newstest2013"),
        authors=None,
        source="4.1",
    ),
    Point(
        name="test set",
        keys=("data.test",),
        here=value("data.test"),
        paper=says("sacrebleu:wmt14/full", "hub:wmt/wmt14:fr-en", text="newstest2014"),
        authors=None,
        source="4.1",
    ),
    Point(
        name="training pairs used",
        keys=("data.limit",),
        here=_limit,
        paper=says("all"),
        authors=says("all"),
        source="4.1; encdec.py get_batch_iterator",
    ),
    Point(
        name="vocabulary",
        keys=("tokenizer.*",),
        here=named("tokenizer", "vocab_size"),
        paper=says("words", text="words of the Moses tokeniser"),
        authors=says("words", text="words of the Moses tokeniser"),
        source="4.1; preprocess/preprocess.py",
    ),
    Point(
        name="vocabulary size",
        keys=("tokenizer.vocab_size",),
        here=_vocabulary_size,
        paper=says("30,000 ids", "30,001 ids", "30,003 ids", text="30,000 words"),
        authors=says("30,001 ids", text="30,001 ids: 29,998 words, unknown, end, one unused"),
        source=f"4.1; preprocess/preprocess.py, {PROTOTYPES}",
    ),
    Point(
        name="length cap",
        keys=("data.max_words",),
        here=value("data.max_words", "{} words"),
        paper=says("50 words", "30 words"),
        authors=says("50 words", "30 words"),
        source=f"4.2; {PROTOTYPES} seqlen",
    ),
    Point(
        name="words that the cap counts",
        keys=("tokenizer.name",),
        here=choice(
            "tokenizer.name",
            {"words": "of the vocabulary", "sentencepiece": "what stands between blanks"},
        ),
        paper=says("of the vocabulary"),
        authors=says("of the vocabulary"),
        source="4.1; encdec.py create_padded_batch",
    ),
    Point(
        name="pairs dropped for their length ratio",
        keys=("data.max_ratio", "data.max_words"),
        here=_ratio,
        paper=None,
        authors=says("none"),
        source="encdec.py create_padded_batch",
    ),
    Point(
        name="duplicate pairs dropped",
        keys=("data.drop_duplicates",),
        here=value("data.drop_duplicates"),
        paper=None,
        authors=says("no"),
        source="encdec.py create_padded_batch",
    ),
)

TRAINING_POINTS = (
    Point(
        name="batch",
        keys=("trainer.batch_sentences", "trainer.batch_tokens"),
        here=_batch,
        paper=says("80 sentences"),
        authors=says("80 sentences"),
        source=f"B.2; {PROTOTYPES} bs",
    ),
    Point(
        name="pool that is sorted by length",
        keys=("trainer.pool_batches", "attention.name"),
        here=_pool,
        paper=says("20 batches (RNNsearch)", "20 batches (RNNencdec)", text="20 batches"),
        authors=says("20 batches (RNNsearch)", "10 batches (RNNencdec)"),
        source=f"B.2; {PROTOTYPES} sort_k_batches",
    ),
    Point(
        name="order of the batches of a pool",
        keys=("trainer.batch_order",),
        here=choice(
            "trainer.batch_order", {"shortest_first": "shortest first", "shuffled": "shuffled"}
        ),
        paper=None,
        authors=says("shortest first"),
        source="encdec.py get_batch_iterator",
    ),
    Point(
        name="shuffling of the corpus",
        keys=("trainer.reshuffle",),
        here=choice("trainer.reshuffle", {False: "once", True: "each epoch"}),
        paper=says("once"),
        authors=says("once"),
        source="B.2; preprocess/shuffle-hdf5.py",
    ),
    Point(
        name="cost before clipping",
        keys=("trainer.normalize",),
        here=choice(
            "trainer.normalize",
            {
                "none": "sum over all words of the batch",
                "sentences": "mean over sentences",
                "words": "mean over words",
            },
        ),
        paper=None,
        authors=says("sum over all words of the batch"),
        source="layers/cost_layers.py SoftmaxLayer.get_cost",
    ),
    Point(
        name="label smoothing",
        keys=("trainer.label_smoothing",),
        here=value("trainer.label_smoothing"),
        paper=None,
        authors=says("0", text="none"),
        source="layers/cost_layers.py SoftmaxLayer.get_cost",
    ),
    Point(
        name="largest gradient norm",
        keys=("trainer.clip_norm",),
        here=value("trainer.clip_norm"),
        paper=says("1"),
        authors=says("1"),
        source=f"B.2; {TRAINER}",
    ),
    Point(
        name="gradient that is not finite",
        keys=(),
        here=fixed("training stops, the weights stay"),
        paper=None,
        authors=says("replaced by 0.1 times the weights"),
        source=TRAINER,
    ),
    Point(
        name="update rule",
        keys=("optimizer.*",),
        here=_rule,
        paper=says("adadelta, rho 0.95, eps 1e-06"),
        authors=says("adadelta, rho 0.95, eps 1e-06"),
        source=f"B.2; {TRAINER}",
    ),
    Point(
        name="learning rate",
        keys=("optimizer.lr",),
        here=value("optimizer.lr"),
        paper=None,
        authors=says("1"),
        source=TRAINER,
    ),
    Point(
        name="weight decay",
        keys=("optimizer.weight_decay",),
        here=value("optimizer.weight_decay"),
        paper=None,
        authors=says("0", text="none"),
        source=PROTOTYPES,
    ),
    Point(
        name="schedule of the learning rate",
        keys=("scheduler.*",),
        here=named("scheduler"),
        paper=None,
        authors=says("constant"),
        source=TRAINER,
    ),
    Point(
        name="weight noise",
        keys=(),
        here=fixed("none"),
        paper=None,
        authors=says("none"),
        source=PROTOTYPES,
    ),
    Point(
        name="averaged weights",
        keys=("trainer.ema_decay",),
        here=value("trainer.ema_decay", "decay {}"),
        paper=None,
        authors=says("decay 0", text="none"),
        source=TRAINER,
    ),
    Point(
        name="number of updates",
        keys=("trainer.max_updates", "data.max_words", "attention.name"),
        here=_updates,
        paper=says(
            "846,000 (RNNencdec-30)",
            "471,000 (RNNsearch-30)",
            "600,000 (RNNencdec-50)",
            "288,000 (RNNsearch-50)",
            "667,000 (RNNsearch-50)",
            text="846,000 (RNNencdec-30), 471,000 (RNNsearch-30), 600,000 (RNNencdec-50), "
            "288,000 (RNNsearch-50), 667,000 (RNNsearch-50*)",
        ),
        authors=None,
        source="Table 2",
    ),
    Point(
        name="limit of epochs",
        keys=("trainer.max_epochs",),
        here=value("trainer.max_epochs"),
        paper=None,
        authors=None,
        source="Table 2",
    ),
    Point(
        name="early stopping",
        keys=("trainer.patience", "data.max_words", "attention.name"),
        here=_early_stopping,
        paper=says(
            "none",
            "once validation improves no more (RNNsearch-50)",
            text="none; RNNsearch-50* once validation improves no more",
        ),
        authors=says("none"),
        source=f"4.2, Table 1; {PROTOTYPES}",
    ),
    Point(
        name="patience of early stopping",
        keys=("trainer.patience", "trainer.select_by"),
        here=_patience,
        paper=None,
        authors=None,
        source="Table 1",
    ),
    Point(
        name="weights that are decoded",
        keys=(
            "trainer.select_by",
            "trainer.validate_every",
            "trainer.validation_sentences",
            "trainer.validation_beam",
        ),
        here=_selection,
        paper=None,
        authors=None,
        source="Table 1",
    ),
    Point(
        name="state kept for a restart",
        keys=(),
        here=fixed("weights, optimizer, average, place in the data"),
        paper=None,
        authors=says("weights, place in the data"),
        source="mainLoop.py",
        note="an uninterrupted run is not concerned",
    ),
)
