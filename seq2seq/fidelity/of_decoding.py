"""Points of search and scoring: section 4 and the authors' `sample.py`."""

from seq2seq.fidelity.point import Point, choice, fixed, says, value

SEARCH = "sample.py BeamSearch.search"

DECODING_POINTS = (
    Point(
        name="beam",
        keys=("decode.beam_size",),
        here=value("decode.beam_size"),
        paper=None,
        authors=says("10", text="10 in their test script"),
        source="4.2; sample.py",
        note='the paper says "a beam search"',
    ),
    Point(
        name="finished hypotheses",
        keys=(),
        here=fixed("leave the beam, which loses a place for each"),
        paper=None,
        authors=says("leave the beam, which loses a place for each"),
        source=SEARCH,
    ),
    Point(
        name="shortest translation",
        keys=("decode.min_ratio",),
        here=value("decode.min_ratio", "{} x source length"),
        paper=None,
        authors=says("0.5 x source length"),
        source=SEARCH,
    ),
    Point(
        name="longest translation",
        keys=("decode.max_ratio",),
        here=value("decode.max_ratio", "{} x source length"),
        paper=None,
        authors=says("3 x source length"),
        source=SEARCH,
    ),
    Point(
        name="steps beyond the longest translation",
        keys=("decode.extra_steps",),
        here=value("decode.extra_steps"),
        paper=None,
        authors=says("0", text="none"),
        source=SEARCH,
    ),
    Point(
        name="score divided by length to the power of",
        keys=("decode.length_penalty",),
        here=value("decode.length_penalty"),
        paper=None,
        authors=says("0", text="0; a flag makes it 1"),
        source=SEARCH,
    ),
    Point(
        name="unknown word in translations",
        keys=("decode.forbid_unknown",),
        here=choice("decode.forbid_unknown", {False: "allowed", True: "forbidden"}),
        paper=says("allowed", text="allowed; forbidden for the column No UNK"),
        authors=says("allowed", text="allowed; a flag forbids it"),
        source="Table 1; sample.py --ignore-unk",
    ),
    Point(
        name="unknown words replaced",
        keys=("decode.replace_unknown",),
        here=value("decode.replace_unknown"),
        paper=None,
        authors=says("no"),
        source="sample.py",
    ),
    Point(
        name="where no hypothesis finished",
        keys=(),
        here=fixed("the best unfinished one is given"),
        paper=None,
        authors=says("searched again, unknown word allowed, then with twice the beam"),
        source="sample.py sample",
    ),
    Point(
        name="longer sources are cut, in tokens",
        keys=("decode.max_source_tokens",),
        here=value("decode.max_source_tokens"),
        paper=None,
        authors=says("none", text="never"),
        source="sample.py",
    ),
    Point(
        name="score",
        keys=("evaluate.bleu_tokenizer",),
        here=value("evaluate.bleu_tokenizer", "BLEU of Moses tokens; of text, by sacreBLEU's {}"),
        paper=None,
        authors=None,
        source="Table 1",
        note="the paper names no script; that of Moses, on tokens, was usual",
    ),
)
