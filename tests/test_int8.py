"""Search in 8 bits: its matmuls against whole numbers, its errors bounded, its rows independent."""

import math

import numpy as np
import pytest
import torch
from conftest import EOS, FAMILY, PAD, tiny_model, tiny_transformer
from test_fused_search import LENGTHS, finds_almost_the_same
from test_search import random_sources
from torch import Tensor, nn

import seq2seq
from seq2seq.cli.stages import trainer_of
from seq2seq.config.compose import load_run_config, preset
from seq2seq.config.schema import Backend, DecodeConfig, DecodePrecision, Readout, Reset
from seq2seq.data.batching import pad_ids
from seq2seq.decoding.search import beam_search
from seq2seq.decoding.translate import for_search
from seq2seq.kernels import native
from seq2seq.kernels.native.int8 import lacking, quantized
from seq2seq.kernels.native.search import NativeSearch
from seq2seq.kernels.search import FusedSearch
from seq2seq.kernels.torch_search import SearchWeights
from seq2seq.model.ensemble import Ensemble, Mixture
from seq2seq.model.protocols import Barred
from seq2seq.play.answers import Answers, Question
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, PlatformError
from seq2seq.run.signals import StopRequest

INT8 = DecodeConfig(precision=DecodePrecision.int8)
# Rows, inputs, words: one, a little more than panels and blocks, several of each.
SIZES = [(1, 1, 1), (33, 7, 65), (70, 256, 130), (9, 513, 64)]

needs_int8 = pytest.mark.skipif(
    lacking(torch.zeros(1)) is not None, reason="no int8 matmuls on this machine"
)


@pytest.fixture
def threads():
    """Any number of threads, for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def draws(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def engine_of(weight: Tensor, bias: Tensor | None = None, n: int = 24) -> NativeSearch:
    """An engine with this output layer; the rest is drawn, of n units each."""
    last = nn.Linear(*weight.T.shape, bias=bias is not None)
    last.weight.data = weight
    if bias is not None:
        last.bias.data = bias
    state, U = draws(4 * n, n, seed=2), draws(n, n, seed=3)
    library = native.library()
    assert library is not None
    return NativeSearch(library, SearchWeights(torch.int8, state, U, last, n, True, False))


def scored(engine: NativeSearch, t: Tensor) -> tuple[Tensor, Tensor]:
    """All logits (rows, words) and log-sum-exps (rows, 1) of an output layer."""
    none = torch.zeros(len(t), dtype=torch.bool)
    barred = Barred(torch.tensor([], dtype=torch.int64), 0, none)
    values, words, log_sums = engine.best(t, len(engine.last.weight), barred)
    return torch.full_like(values, math.nan).scatter(1, words, values), log_sums


# Matmuls ------------------------------------------------------------------------------------------


@needs_int8
@pytest.mark.parametrize(("rows", "inputs", "words"), SIZES)
def test_whole_numbers_are_multiplied_exactly(rows, inputs, words):
    rng = np.random.default_rng(rows)
    x, w = rng.integers(0, 256, (rows, inputs)), rng.integers(-127, 128, (words, inputs))
    x[:, 0], w[:, -1] = 255, 127  # these make the scales 1 ..
    if inputs > 1:
        x[:, -1] = 0  # .. and the offset 0
    logits, _ = scored(engine_of(torch.tensor(w).float()), torch.tensor(x).float())
    assert logits.tolist() == (x @ w.T).tolist()


@needs_int8
@pytest.mark.parametrize(("rows", "inputs", "words"), SIZES)
@pytest.mark.parametrize("mean", [0.0, 3.0, -300.0])
def test_the_error_is_that_of_two_roundings(mean, rows, inputs, words):
    x, w, b = draws(rows, inputs) + mean, draws(words, inputs, seed=2), draws(words, seed=3)
    w[words // 2] *= 1000  # a column with a scale of its own
    logits, log_sums = scored(engine_of(w, b), x)
    exact = x.double() @ w.double().T + b
    x_step = (x.amax(1) - x.amin(1)).double()[:, None] / 255
    w_step = w.abs().amax(1).double() / 127
    bound = x_step / 2 * w.abs().sum(1) + w_step / 2 * (x.abs() + x_step / 2).sum(1, keepdim=True)
    assert (logits - exact).abs().le(1.01 * bound + 1e-5 * exact.abs() + 1e-5).all()
    torch.testing.assert_close(log_sums[:, 0], logits.logsumexp(dim=1), rtol=1e-5, atol=1e-5)


@needs_int8
@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_an_input_is_off_by_half_a_step(mean):
    x = draws(40, 65) + mean
    seen, _ = scored(engine_of(torch.eye(65)), x)
    step = (x.amax(1) - x.amin(1))[:, None] / 255
    assert ((seen - x).abs() <= 0.501 * step + 1e-6 * mean).all()
    assert seen.unique(dim=1).shape == seen.shape


def test_a_weight_is_rounded_by_columns():
    w = draws(50, 30) * 10.0 ** torch.arange(-20, 30)[:, None]
    w[7], w[8] = 0, 1e-42 * w[8].sign()  # too small for a scale
    w_q, scale = quantized(w)
    assert (w_q.dtype, w_q.shape, scale.shape) == (torch.int8, w.shape, (50,))
    w[8] = 0
    off = (scale.double()[:, None] * w_q - w.double()).abs()
    assert (off <= 0.5001 * scale.double()[:, None]).all()
    assert w_q.abs().amax(dim=1).tolist() == [0 if row in (7, 8) else 127 for row in range(50)]


@needs_int8
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-39, 1e-30, 1.0, 1e20, 3.3e38])
def test_rows_of_any_size_are_finite(size):
    x, w = draws(5, 40).clamp(-1, 1) * size, 1e-3 * draws(70, 40, seed=2)
    x[0], x[1] = size, 0  # without a range; zero
    x[2, 0], x[2, 1] = size, -size  # with the largest range
    logits, log_sums = scored(engine_of(w), x)
    assert logits.isfinite().all()
    assert (log_sums.isfinite()).all()
    assert logits[1].tolist() == [0.0] * 70
    exact = x.double() @ w.double().T
    bound = size / 255 * w.abs().sum(1) + w.abs().amax(1) / 254 * 40 * 1.01 * size + 1e-40
    if 2 * size < torch.finfo(torch.float32).max:
        assert ((logits - exact).abs() <= bound).all()


@needs_int8
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_stays_in_its_row(wrong):
    engine, x = engine_of(draws(70, 40)), draws(5, 40, seed=2)
    expected, sums = scored(engine, x)
    x[3, 0] = wrong
    logits, log_sums = scored(engine, x)
    others = [0, 1, 2, 4]
    assert log_sums.isnan()[:, 0].tolist() == [row == 3 for row in range(5)]
    assert torch.equal(logits[others], expected[others])
    assert torch.equal(log_sums[others], sums[others])


# Rows do not depend on each other -----------------------------------------------------------------


@needs_int8
@pytest.mark.parametrize("count", [1, 2, 3])
def test_neighbours_and_threads_change_no_bit(threads, count):
    engine, t = engine_of(draws(300, 50), draws(300, seed=4)), draws(101, 50, seed=2)
    t[1::2] *= 1e4  # a scale in common would show
    threads(1)
    alone = [scored(engine, row[None]) for row in t]
    threads(count)
    for part in (slice(0, 101), slice(5, 38), slice(0, 101, 7)):
        logits, log_sums = scored(engine, t[part])
        for row, expected in enumerate(alone[part]):
            assert torch.equal(logits[row], expected[0][0]), f"{part}, row {row}"
            assert torch.equal(log_sums[row], expected[1][0]), f"{part}, row {row}"


@needs_int8
@pytest.mark.parametrize("count", [1, 2])
def test_states_of_a_step_depend_on_their_sentence_alone(threads, count):
    (B, Tx, n), slots = (40, 5, 24), 2
    engine = engine_of(draws(30, n))
    keys, adds, v_a = draws(B, Tx, n), draws(B, Tx, 4 * n, seed=4), draws(n, seed=5)
    s, word, gates = (draws(B * slots, w * n, seed=6) for w in (1, 1, 3))
    mask = torch.ones(B, Tx, dtype=torch.bool)

    def step(some: slice) -> list[Tensor]:
        rows = slice(some.start * slots, some.stop * slots)
        shared = engine.share(keys[some], adds[some], mask[some], v_a)
        t, drive, alpha = engine.predict(s[rows], word[rows], shared, slots)
        return [t, drive, alpha, engine.advance(s[rows], drive, gates[rows])]

    threads(count)
    together = step(slice(0, B))
    threads(1)
    for i in range(B):
        for all_rows, own in zip(together, step(slice(i, i + 1)), strict=True):
            assert torch.equal(all_rows[i * slots : (i + 1) * slots], own)


# Search -------------------------------------------------------------------------------------------


@needs_int8
@pytest.mark.parametrize(
    "changes", [{}, {"bias": False, "reset": Reset.after, "readout": Readout.tanh}], ids=str
)
def test_search_finds_almost_what_float32_finds(changes):
    def in_8_bits(model, sources, rules):
        with torch.inference_mode():
            searcher = FusedSearch(model.encoder, model.decoder, torch.float32, int8=True)
            return beam_search(searcher, *pad_ids(sources, PAD), rules)

    finds_almost_the_same(in_8_bits, **changes)


@needs_int8
def test_the_best_words_have_exact_probabilities():
    """As far as the other words allow, whose share of the sum is of rounded logits."""
    model = tiny_model(3, vocab=400, scale=0.5).float()
    with torch.inference_mode():
        searcher = FusedSearch(model.encoder, model.decoder, torch.float32, int8=True)
        src, mask = pad_ids(random_sources(3, LENGTHS, 400), PAD)
        state = searcher.begin(src, mask)
        prediction, _ = searcher.step(torch.full((len(src),), PAD), state)
        none = torch.zeros(len(src), dtype=torch.bool)
        barred = Barred(torch.tensor([PAD]), EOS, none)
        best, exact = prediction.best(5, barred), prediction.log_probs()
    expected = exact.index_fill(1, torch.tensor([PAD]), -torch.inf).topk(5)
    assert torch.equal(best.words, expected.indices)
    own = exact.gather(1, best.words)
    # Differences between words are exact; what they have in common is the sum of all.
    torch.testing.assert_close(best.log_probs.diff(), own.diff(), rtol=0, atol=1e-5)
    torch.testing.assert_close(best.log_probs, own, rtol=0, atol=5e-3)


@needs_int8
def test_the_precision_of_a_config_reaches_every_member(monkeypatch):
    models = [tiny_model(seed, backend=Backend.auto).float() for seed in (1, 2)]
    assert for_search(models[0], DecodeConfig()).engine.format == 0
    found = for_search(Ensemble(models, Mixture([0.5, 0.5], False)).eval(), INT8)
    assert [member.engine.format for member in found.members] == [2, 2]
    for bf16 in (True, False):  # what is not in 8 bits runs in bfloat16 where that is fast
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda bf16=bf16: bf16)
        searcher = for_search(models[0], INT8)
        assert searcher.dtype is (torch.bfloat16 if bf16 else torch.float32)
        assert searcher.engine.format == 2


LINES = ["the cat sees the dog .", "", "a dog sleeps .", "the dog sees the small cat ."] * 3


@needs_int8
@pytest.mark.e2e
def test_runs_decode_in_any_batch_and_number_of_processes(run):
    def scored(*settings: str, processes: int | None = None) -> list[tuple]:
        model = seq2seq.load(run, ["decode.precision=int8", *settings])
        found = model.stream(LINES, processes=processes)
        return [(t.text, *(c.token_log_probs for c in t.candidates)) for t in found]

    expected = scored()
    assert any(text for text, *_ in expected)
    assert scored("decode.batch_sentences=1") == expected
    assert scored("decode.batch_sentences=5") == expected
    assert scored("decode.batch_sentences=5", processes=2) == expected


@needs_int8
@pytest.mark.e2e
def test_the_page_also_answers_with_changed_attention(run):
    """It searches step by step then, with the other matmuls of int8."""
    asked = Question(LINES[0], change="flatten")
    found = []
    for precision in ("bf16", "int8"):
        answers = Answers(seq2seq.load(run, [f"decode.precision={precision}"]), None)
        [answer] = answers.alternatives([asked], lambda: True)
        found.append(answer["alternatives"])
    assert found[0]
    if torch.cpu._is_avx512_bf16_supported():
        assert found[0] == found[1]


# Refusals -----------------------------------------------------------------------------------------


def refused(model) -> str:
    with pytest.raises((ConfigError, PlatformError)) as caught:
        for_search(model, INT8)
    return str(caught.value)


FIX = "Use decode.precision=bf16 or decode.precision=fp32."


def test_processors_without_int8_are_refused(monkeypatch):
    model = tiny_model(1, backend=Backend.auto).float()
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    what = "this processor has no int8 matmuls (AVX512-VNNI)"
    assert refused(model) == f"decode.precision: {what}. {FIX}"
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(native, "library", lambda: None)
    what = "int8 matmuls need the native library, so a C compiler"
    assert refused(model) == f"decode.precision: {what}. {FIX}"


@pytest.mark.e2e
def test_a_training_is_refused_before_it_starts(run, monkeypatch):
    """Not at its first validation, which may be hours later."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    place = RunDir(run)
    config = load_run_config(place.checked("config.yaml"), ["decode.precision=int8"])
    with pytest.raises(PlatformError, match="this processor has no int8 matmuls"):
        trainer_of(config, place, StopRequest())


@needs_int8
def test_a_limited_onednn_is_refused(monkeypatch):
    """It ends a process that asks it for what it has been denied."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    what = "int8 matmuls of oneDNN are switched off"
    assert refused(tiny_model(1, backend=Backend.auto).float()).startswith(
        f"decode.precision: {what}"
    )


def test_other_weights_are_refused():
    what = "int8 matmuls need float32 weights on a CPU, not torch.float64 on cpu"
    assert refused(tiny_model(1, backend=Backend.auto)) == f"decode.precision: {what}. {FIX}"


@pytest.mark.parametrize("kind", ["reference", "dot", "transformer"])
def test_models_without_the_fused_search_are_refused(kind):
    if kind == "transformer":
        model = tiny_transformer(1)
    elif kind == "dot":
        model = tiny_model(1, attention=FAMILY[kind], align_size=6, backend=Backend.auto)
    else:
        model = tiny_model(1, backend=Backend.reference)
    what = "decode.precision=int8 needs the paper's unit, additive attention, fused kernels"
    assert refused(model.float()) == f"config: {what}. Use decode.precision=bf16."


def test_only_decoding_knows_int8():
    assert preset("quickstart", ["decode.precision=int8"]).decode.precision is DecodePrecision.int8
    for key in ("trainer.precision", "trainer.reduce_precision"):
        with pytest.raises(ConfigError, match=rf"{key}: .*'int8', expected one of \[fp32, bf16\]"):
            preset("quickstart", [f"{key}=int8"])
