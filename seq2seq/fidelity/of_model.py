"""Points of the model: Appendix A, B.1 and the authors' `encdec.py`."""

from seq2seq.fidelity.point import Point, Values, choice, fixed, named, says, value, written

DECODER = "encdec.py Decoder.build_decoder"
SIZES = "A.2.3; state.py"


def _dropout(values: Values) -> str:
    places = {"embedding": "model", "annotation": "encoder", "readout": "decoder"}
    rates = {place: values[f"{group}.{place}_dropout"] for place, group in places.items()}
    return ", ".join(f"{place} {written(rate)}" for place, rate in rates.items() if rate) or "none"


def _output_matrix(values: Values) -> str:
    rank = values["decoder.output_rank"]
    return "l x K_y" if rank is None else f"l x {rank} x K_y"


PAPER_WEIGHTS = "recurrent orthogonal; W_a, U_a N(0, 0.001^2); v_a, biases 0; others N(0, 0.01^2)"
GLOROT_WEIGHTS = "recurrent orthogonal; biases 0; embeddings N(0, 1/m); others Glorot uniform"

MODEL_POINTS = (
    Point(
        name="word embedding, m",
        keys=("model.embedding_size",),
        here=value("model.embedding_size"),
        paper=says("620"),
        authors=says("620"),
        source=SIZES,
    ),
    Point(
        name="hidden units, n",
        keys=("model.hidden_size",),
        here=value("model.hidden_size"),
        paper=says("1,000"),
        authors=says("1,000"),
        source=SIZES,
    ),
    Point(
        name="alignment units, n'",
        keys=("model.align_size",),
        here=value("model.align_size"),
        paper=says("1,000"),
        authors=says("1,000"),
        source=SIZES,
    ),
    Point(
        name="readout units, l",
        keys=("model.readout_size",),
        here=value("model.readout_size"),
        paper=says("500"),
        authors=says("500"),
        source=SIZES,
    ),
    Point(
        name="gated unit",
        keys=(),
        here=fixed("z weights the new state; reset, update and candidate read word and state"),
        paper=says("z weights the new state; reset, update and candidate read word and state"),
        authors=says("z weights the new state; reset, update and candidate read word and state"),
        source="A.1.1; layers/rec_layers.py RecurrentLayer",
        note="torch.nn.GRU gives z to the old state",
    ),
    Point(
        name="reset gate",
        keys=("cell.reset",),
        here=choice("cell.reset", {"before": "before U", "after": "after U"}),
        paper=says("before U"),
        authors=says("before U"),
        source="A.1.1; layers/rec_layers.py RecurrentLayer",
    ),
    Point(
        name="biases of the gates",
        keys=(),
        here=fixed("none"),
        paper=None,
        authors=says("none"),
        source="A.1.1; encdec.py",
    ),
    Point(
        name="biases",
        keys=("model.bias",),
        here=choice(
            "model.bias", {True: "candidate state, start state, readout, output", False: "none"}
        ),
        paper=says(
            "candidate state, start state, readout, output", text="some; not printed, start at 0"
        ),
        authors=says("candidate state, start state, readout, output"),
        source="A.2.1, B.1; encdec.py",
    ),
    Point(
        name="bias of embedded words",
        keys=("model.embedding_bias",),
        here=value("model.embedding_bias"),
        paper=None,
        authors=says("yes"),
        source="encdec.py Encoder.create_layers",
    ),
    Point(
        name="initial weights",
        keys=("model.init",),
        here=choice("model.init", {"paper": PAPER_WEIGHTS, "glorot": GLOROT_WEIGHTS}),
        paper=says(PAPER_WEIGHTS),
        authors=says(PAPER_WEIGHTS),
        source="B.1; encdec.py",
    ),
    Point(
        name="source embedding",
        keys=(),
        here=fixed("one for both directions"),
        paper=says("one for both directions"),
        authors=says("one for both directions"),
        source="A.2.1; encdec.py",
    ),
    Point(
        name="end symbol of the source",
        keys=(),
        here=fixed("read and attended to"),
        paper=says("read and attended to"),
        authors=says("read and attended to"),
        source="Fig. 3; encdec.py",
    ),
    Point(
        name="padding",
        keys=(),
        here=fixed("copies the state, gets no attention"),
        paper=None,
        authors=says("copies the state, gets no attention"),
        source="layers/rec_layers.py",
    ),
    Point(
        name="start state",
        keys=(),
        here=fixed("tanh of W_s h_bwd_1 (RNNencdec: h_fwd_Tx)"),
        paper=says("tanh of W_s h_bwd_1 (RNNencdec: h_fwd_Tx)"),
        authors=says("tanh of W_s h_bwd_1 (RNNencdec: h_fwd_Tx)"),
        source=f"A.2.2; {DECODER}",
    ),
    Point(
        name="context",
        keys=("attention.*",),
        here=named("attention"),
        paper=says("additive", "fixed", text="additive (RNNsearch), fixed (RNNencdec)"),
        authors=says("additive", "fixed", text="additive (RNNsearch), fixed (RNNencdec)"),
        source=f"3.1, A.1.2; {DECODER}",
    ),
    Point(
        name="state that asks the attention",
        keys=(),
        here=fixed("s_{i-1}"),
        paper=says("s_{i-1}"),
        authors=says("s_{i-1}"),
        source=f"A.1.2; {DECODER}",
    ),
    Point(
        name="word that moves the state",
        keys=("decoder.state_word",),
        here=choice("decoder.state_word", {"emitted": "y_i", "previous": "y_{i-1}"}),
        paper=says("y_{i-1}"),
        authors=says("y_i"),
        source=f"A.2.2; {DECODER}",
        note="with y_i the state that predicts the next word has seen it, with y_{i-1} it has not",
    ),
    Point(
        name="state read by the output",
        keys=(),
        here=fixed("s_{i-1}"),
        paper=says("s_{i-1}", text="s_{i-1}; Eq. (4) writes s_i"),
        authors=says("s_{i-1}"),
        source=f"A.2.2, 3.1; {DECODER}",
    ),
    Point(
        name="first previous word",
        keys=(),
        here=fixed("zero vector"),
        paper=None,
        authors=says("zero vector"),
        source=DECODER,
    ),
    Point(
        name="readout",
        keys=("decoder.readout",),
        here=choice("decoder.readout", {"maxout": "maxout over adjacent pairs"}),
        paper=says("maxout over adjacent pairs"),
        authors=says("maxout over adjacent pairs"),
        source=f"A.2.2; {DECODER}",
    ),
    Point(
        name="output matrix",
        keys=("decoder.output_rank",),
        here=_output_matrix,
        paper=says("l x K_y"),
        authors=says("l x 620 x K_y"),
        source=f"A.2.2; {DECODER}",
    ),
    Point(
        name="softmax",
        keys=(),
        here=fixed("shifted by the largest energy"),
        paper=None,
        authors=says("not shifted"),
        source="layers/cost_layers.py SoftmaxLayer",
        note="the same function; unshifted it overflows",
    ),
    Point(
        name="dropout",
        keys=("model.embedding_dropout", "encoder.annotation_dropout", "decoder.readout_dropout"),
        here=_dropout,
        paper=None,
        authors=says("none"),
        source="state.py",
    ),
    Point(
        name="precision",
        keys=("trainer.precision",),
        here=value("trainer.precision"),
        paper=None,
        authors=says("fp32"),
        source="floatX",
    ),
)
