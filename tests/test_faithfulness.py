"""The faithfulness sheet: each measure against NumPy, planted cases, and a run from end to end."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import (
    FAMILY,
    PAD,
    attention_of,
    oracle_of,
    random_pairs,
    tiny_model,
    tiny_transformer,
)
from oracles import average
from runs import (
    assert_fails,
    composed,
    config_of,
    copy_of,
    layers_run,
    run_new,
    template_pairs,
    write_corpus,
)
from torch import nn

import seq2seq
from seq2seq.config.schema import Norm
from seq2seq.config.schema.placeholders import all_symbols
from seq2seq.data.batching import collate
from seq2seq.data.prepare import SIDES
from seq2seq.data.tokenizer import EOS, SPACE
from seq2seq.evaluation import faithfulness_of_run
from seq2seq.evaluation.counterfactual import EXCHANGES, counterfactuals, shuffled
from seq2seq.evaluation.erasure import (
    PATH_STEPS,
    SHARES,
    Question,
    attributions,
    erased,
    kendall,
    rollout,
)
from seq2seq.evaluation.faithfulness import LIMITS, Retrained, as_text, reading
from seq2seq.evaluation.faithfulness_of_run import (
    SHEET,
    UNFINISHED,
    Recorder,
    classes_of,
    counted,
    keep,
    measure,
    saved,
    summed,
)
from seq2seq.model.attention import GeneralAttention
from seq2seq.model.backend import Backend
from seq2seq.model.decoder import RecurrentDecoder
from seq2seq.model.draws import fold
from seq2seq.model.embedding import WordEmbedding
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.intervention import intervened
from seq2seq.model.protocols import Memory
from seq2seq.report.of_run import describe_run
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError

# Against NumPy ------------------------------------------------------------------------------------


def exchanged(name, alpha, order):
    """Other weights (Tx,), from their definition."""
    size = len(alpha)
    match name:
        case "uniform":
            return np.full(size, 1 / size)
        case "permuted":
            return np.array([alpha[j] for j in order])
        case "last":
            return np.eye(size)[-1]
        case "least":
            return np.eye(size)[int(np.argmin(alpha))]
        case "without_most":
            others = np.arange(size) != np.argmax(alpha)
            rest = others * (alpha if (others * alpha).any() else 1.0)
            return rest / rest.sum() * alpha.sum()
    raise AssertionError(name)


@pytest.mark.parametrize("kind", ["additive", "coverage", "hard", "local", "scaled_dot"])
def test_exchanged_weights_equal_an_implementation_in_loops(kind):
    model, seed = tiny_model(3, scale=1.5, attention=FAMILY[kind]), 5
    pairs = random_pairs(7, ((4, 3), (2, 5), (5, 1), (3, 2)))
    numbers = [4, 9, 2, 7]
    found = counterfactuals(model, collate(pairs, PAD), numbers, seed, [PAD])
    oracle = oracle_of(model)
    assert found.words.shape[-1] == 1 + len(EXCHANGES)
    for row, (number, (src, tgt)) in enumerate(zip(numbers, pairs, strict=True)):
        h = oracle.annotate(src)
        s, y_prev, past = oracle.start(h), None, []
        for i, y in enumerate(tgt):
            alpha, c = oracle.attend(s, h, past)
            order = shuffled(len(src), fold(seed, number, i))
            assert sorted(order) == list(range(len(src)))
            every = [alpha] + [exchanged(name, alpha, order) for name in EXCHANGES]
            for slot, weights in enumerate(every):
                hard = attention_of(model)[0] == "hard"
                context = h[int(np.argmax(weights))] if hard else average(weights, h)
                p = oracle.words(oracle.last_hidden(s, y_prev, context))
                p[PAD] = 0
                assert found.words[row, i, slot] == np.argmax(p), (row, i, slot)
                moved = np.abs(weights - alpha).sum() / 2
                assert found.distance[row, i, slot] == pytest.approx(moved, abs=1e-9)
            past.append(alpha)
            s, y_prev = oracle.advance(s, c, y_prev=y_prev, y=y), y
    assert not found.stays.all()


@pytest.mark.parametrize("name", ["transformer", "multi_head"])
@torch.no_grad()
def test_a_head_alone_is_uniform_at_one_word(name):
    """Along the whole target, where a change reaches no earlier word."""
    heads = tiny_model(2, attention=FAMILY["multi_head"], align_size=4)
    model = tiny_transformer(2, norm=Norm.pre) if name == "transformer" else heads
    layers = 2 if name == "transformer" else 1
    batch = collate(random_pairs(3, ((5, 4), (3, 4))), PAD)
    parts = batch.src, batch.src_mask, batch.tgt, batch.tgt_mask
    found, own = counterfactuals(model, batch, [1, 2], 0, [PAD]), model.follow(*parts).alpha
    places = [(layer, head) for layer in range(layers) for head in range(2)]
    assert found.words.shape == (2, 4, 1 + len(EXCHANGES) + len(places))
    for slot, place in enumerate(places, start=1 + len(EXCHANGES)):
        for i in range(4):

            def change(weights, mask, step, layer, at=(i, *place)):
                weights = weights.clone()
                if (step, layer) == at[:2]:
                    weights[:, at[2]] = (mask.double() / mask.sum(dim=-1, keepdim=True))[:, 0]
                return weights

            changed = intervened(model, change)
            followed = changed.follow(*parts)
            logits = changed.logits(followed.t).view(2, 4, -1)[:, i]
            logits[:, PAD] = -torch.inf
            assert found.words[:, i, slot].tolist() == logits.argmax(dim=-1).tolist()
            moved = (followed.alpha - own)[:, i].abs().sum(dim=-1) / 2
            assert found.distance[:, i, slot] == pytest.approx(moved.numpy(), abs=1e-12)


def with_factors(oracle, src, factors):
    """An oracle and a source whose words have embeddings of their own, f_j times the first."""
    weights, name = dict(oracle.weights), "encoder.embedding.E.weight"
    bias = oracle.bias("encoder.embedding")
    weights[name] = np.array(
        [f * (weights[name][x] + bias) - bias for f, x in zip(factors, src, strict=True)]
    )
    other = type(oracle).__new__(type(oracle))
    other.__dict__ = {**oracle.__dict__, "weights": weights}
    return other, list(range(len(src)))


def last_log_p(oracle, src, tgt, factors):
    own, ids = with_factors(oracle, src, factors)
    return np.log(own.force(ids, tgt).distributions[-1][tgt[-1]])


@pytest.mark.parametrize("kind", ["additive", "local"])
def test_gradients_equal_differences_of_the_oracle(kind):
    """Central differences, and the complex step along the path of integrated gradients."""
    model, pairs = tiny_model(4, attention=FAMILY[kind]), random_pairs(2)
    oracle = oracle_of(model)
    gradient, integrated = attributions(model, collate(pairs, PAD))
    for row, (src, tgt) in enumerate(pairs):
        ones, h = np.ones(len(src)), 1e-6
        for j in range(len(src)):
            step = h * np.eye(len(src))[j]
            both = [last_log_p(oracle, src, tgt, ones + sign * step) for sign in (1, -1)]
            assert gradient[row, j] == pytest.approx((both[0] - both[1]) / (2 * h), abs=1e-7)
            path = [
                last_log_p(oracle, src, tgt, (k + 0.5) / PATH_STEPS * ones + 1e-24j * step).imag
                for k in range(PATH_STEPS)
            ]
            assert integrated[row, j] == pytest.approx(np.mean(path) / (1e-24 * h), abs=1e-9)
        if kind == "additive":  # a window jumps, and is not the integral of its slope
            ends = [last_log_p(oracle, src, tgt, f * ones) for f in (1, 0)]
            assert integrated[row].sum() == pytest.approx(ends[0] - ends[1], abs=0.1)


def test_erasure_equals_the_oracle_without_the_words():
    """The last position is the end symbol and always stays."""
    model, pairs = tiny_model(6), random_pairs(9, ((7, 3), (3, 2)))
    oracle, rng = oracle_of(model), np.random.default_rng(1)
    questions = [
        Question(src, tgt, range(len(src) - 1), {n: rng.normal(size=len(src) - 1) for n in "ab"})
        for src, tgt in pairs
    ]
    for (src, tgt), question, (p, lost) in zip(
        pairs, questions, erased(model, questions), strict=True
    ):
        assert p == pytest.approx(np.exp(last_log_p(oracle, src, tgt, np.ones(len(src)))))
        for r, values in enumerate(question.rankings.values()):
            order = sorted(range(len(src) - 1), key=lambda j: -values[j])
            for k, share in enumerate(SHARES):
                first = order[: int(np.ceil(share * len(order)))]
                for kept, gone in enumerate([first, [j for j in order if j not in first]]):
                    factors = [0.0 if j in gone else 1.0 for j in range(len(src))]
                    zeroed = np.exp(last_log_p(oracle, src, tgt, factors))
                    left = [x for j, x in enumerate(src) if j not in gone]
                    removed = np.exp(last_log_p(oracle, left, tgt, np.ones(len(left))))
                    assert lost[r, :, kept, k] == pytest.approx([p - zeroed, p - removed], abs=1e-9)


def test_rank_correlation_and_rollout():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=7), rng.normal(size=7).round()
    pairs = [(i, j) for i in range(7) for j in range(i)]
    signs = [(np.sign(a[i] - a[j]), np.sign(b[i] - b[j])) for i, j in pairs]
    tied = sum(y != 0 for _, y in signs)
    assert kendall(a, b) == pytest.approx(sum(x * y for x, y in signs) / np.sqrt(21 * tied))
    assert kendall(a, -a) == pytest.approx(-1)
    assert kendall(a, np.zeros(7)) is None
    encoder, alpha = rng.dirichlet(np.ones(4), size=(2, 3, 4)), rng.dirichlet(np.ones(4))
    one, two = (0.5 * layer.mean(axis=0) + 0.5 * np.eye(4) for layer in encoder)
    assert rollout(encoder, alpha) == pytest.approx(alpha @ two @ one)


def test_sums_over_words_and_sentences():
    """Two sentences by hand: three words and one, one layer of two heads."""
    stays = np.array([[1, 1, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 0, 0, 1]])
    moved = np.array([[0, 0.4, 0.8, 0.9, 1, 0.9, 0, 0]] * 3)
    first = counted(["function", "content", "content"], stays.astype(bool), moved, (1, 2))
    second = counted(["content"], stays[:1].astype(bool), moved[:1], (1, 2))
    asked = {"p": 0.5, "lost": np.full((4, 2, 2, 3), 0.25).tolist(), "tau": {"gradient": 0.5}}
    asked |= {"tau_heads": [[0.25, None]]}
    sheet = summed([first | asked, {}, second], {})
    assert sheet.words == {"function": 1, "copied": 0, "content": 3, "all": 4}
    assert sheet.stays["uniform"] == {"function": 1, "copied": None, "content": 2 / 3, "all": 0.75}
    assert sheet.stays["permuted"]["all"] == 0.25
    assert sheet.stays["last"]["all"] == 0
    assert sheet.stays["adversarial"]["all"] == 0.25  # at 0.4 a word has not moved far
    assert sheet.distance["adversarial"] == pytest.approx((0.4 + 1 + 0 + 0.4) / 4)
    assert (sheet.asked, sheet.probability, sheet.agreement) == (1, 0.5, {"gradient": 0.5})
    assert sheet.erasure["random"]["removed"].sufficiency.area == 0.25
    assert sheet.heads.stays == [[0.75, 0.5]]
    assert sheet.heads.agreement == [[0.25, None]]


def test_empty_translations_leave_no_word_to_measure():
    """Also where there are layers and heads."""
    slots = 1 + len(EXCHANGES) + 6
    empty = counted([], np.zeros((0, slots), bool), np.zeros((0, slots)), (2, 3))
    sheet = summed([empty, {}, empty], {})
    assert (sheet.words["all"], sheet.asked, sheet.probability) == (0, 0, None)
    assert sheet.heads.stays == sheet.heads.agreement == [[None] * 3] * 2
    assert as_text({"run": sheet}).endswith("\n\nrun: There is no word to measure.")


# Planted cases ------------------------------------------------------------------------------------

NUM_WORDS, LONGEST = 12, 8


class OneHot(nn.Module):
    """An encoder: the word and the position of each token, side by side."""

    state_size, summary_size = NUM_WORDS + LONGEST, 1

    def __init__(self) -> None:
        super().__init__()
        self.embedding = WordEmbedding(NUM_WORDS, NUM_WORDS, bias=False, zero_id=PAD)
        self.embedding.E.weight.data = torch.eye(NUM_WORDS)

    def forward(self, src, mask):
        places = torch.eye(LONGEST)[: src.shape[1]].expand(len(src), -1, -1)
        states = torch.cat([self.embedding(src), places], dim=-1)
        return Memory(states, states.new_zeros(len(src), 1), mask)


class Counter(nn.Module):
    """A cell whose state is the number of the step, one of `LONGEST`."""

    hidden_size = LONGEST

    def begin(self, h):
        return (torch.eye(LONGEST)[:1].expand(len(h), -1),)

    def project(self, x):
        return x

    def step(self, _x, state, _c=None):
        return (state[0].roll(1, dims=-1),)

    def output(self, state):
        return state[0]


def copy_model():
    """A model that copies its source: step i attends to position i and writes the word there."""
    attention = GeneralAttention(LONGEST, NUM_WORDS + LONGEST)
    embedding = WordEmbedding(NUM_WORDS, 2, bias=False, zero_id=PAD)
    decoder = RecurrentDecoder(
        embedding,
        attention,
        Counter(),
        nn.Linear(NUM_WORDS, NUM_WORDS, bias=False),
        **{"summary_size": 1, "readout_size": NUM_WORDS, "maxout": False, "bias": False},
        **dict.fromkeys(("embedding_dropout", "word_dropout", "readout_dropout"), 0.0),
        backend=Backend(),
        moved_by_emitted=True,
    )
    with torch.no_grad():
        for weight in decoder.parameters():
            weight.zero_()
        attention.U_a.weight[:, NUM_WORDS:] = 50 * torch.eye(LONGEST)
        decoder.C_o.weight[:, :NUM_WORDS] = torch.eye(NUM_WORDS)
        decoder.W_o.weight[:] = 20 * torch.eye(NUM_WORDS)
    return EncoderDecoder(OneHot(), decoder, Backend()).eval()


def test_a_copy_model_is_faithful():
    """All weight is on the word copied: elsewhere another word comes, and no other word matters."""
    model = copy_model()
    src = [[5, 3, 9, 7, 4, EOS], [8, 11, 6, EOS]]
    batch = collate([(x, x) for x in src], PAD)
    found = counterfactuals(model, batch, [1, 2], 0, [PAD])
    slots = ["own", *EXCHANGES]
    for row, words in enumerate(src):
        real = found.stays[row, : len(words) - 1]
        assert found.words[row, : len(words), 0].tolist() == words
        assert not real[:, [slots.index(n) for n in ("last", "least", "without_most")]].any()
        kept = [shuffled(len(words), fold(0, row + 1, i))[i] == i for i in range(len(words) - 1)]
        assert real[:, slots.index("permuted")].tolist() == kept
    # Erasure: word 2 of the first sentence.
    gradient, integrated = attributions(model, collate([(src[0], src[0][:3])], PAD))
    assert np.argmax(gradient[0]) == np.argmax(integrated[0]) == 2
    assert integrated[0].sum() == pytest.approx(integrated[0][2], abs=1e-6)
    rankings = {"attention": np.eye(5)[2], "others": 1 - np.eye(5)[2]}
    [(p, lost)] = erased(model, [Question(src[0], src[0][:3], range(5), rankings)])
    assert p == pytest.approx(1, abs=1e-4)
    assert lost[0, 0] == pytest.approx(np.array([[1 - 1 / NUM_WORDS] * 3, [0] * 3]), abs=1e-4)
    assert lost[1, 0, 0] == pytest.approx(0, abs=1e-4)  # the other words, zeroed
    assert lost[0, 1, 0] == pytest.approx(1, abs=1e-4)  # removed: another word stands there


def lines_of(run):
    return (run / "corpus/test.source").read_text("utf-8").splitlines()


def measured(pretrained, lines):
    return measure(pretrained, lines, ["fr"] * len(lines), {}, None)


@pytest.mark.e2e
def test_the_sheet_is_of_the_translations_that_decode_makes(run, monkeypatch):
    model, texts = seq2seq.load(run, ["decode.no_repeat_ngram=1"]), []
    target = model.tokenizers[1]

    def read(of_run, batch, numbers, *args):
        for _, ids in sorted(zip(numbers, batch.tgt.tolist(), strict=True)):
            texts.append(target.write(target.pieces([i for i in ids if i not in (PAD, EOS)]))[0])
        return counterfactuals(of_run, batch, numbers, *args)

    monkeypatch.setattr(faithfulness_of_run, "counterfactuals", read)
    lines = lines_of(run)[:3]
    measured(model, lines)
    assert texts == [translation.text for translation in model.translate(lines)]
    assert texts != [translation.text for translation in seq2seq.load(run).translate(lines)]


@pytest.mark.e2e
def test_a_context_that_is_cut_off_is_not_needed(run):
    """The model says what the state alone makes it say, whatever the weights."""
    pretrained, lines = seq2seq.load(run), lines_of(run)[:8]
    needed = measured(pretrained, lines)
    assert max(needed.stays[name]["content"] for name in ("uniform", "permuted", "last")) < 0.6
    assert reading(needed)[0].startswith("Attention is needed")
    decoder = pretrained.model.decoder
    with torch.no_grad():
        for layer in (decoder.C_o, decoder.unit.C, decoder.unit.C_z, decoder.unit.C_r):
            layer.weight.zero_()
    sheet = measured(pretrained, lines)
    assert {shares["all"] for shares in sheet.stays.values()} == {1.0}
    assert reading(sheet)[0].startswith("Attention is not needed: 100% of the model's words stay")
    assert reading(sheet)[-1] == LIMITS


# A run --------------------------------------------------------------------------------------------

SPLITS = {"train": "train", "validation": "val", "test": "test"}


@pytest.mark.e2e
def test_an_interrupted_sheet_is_continued_to_the_same_bytes(run, script, tmp_path, monkeypatch):
    monkeypatch.setattr(faithfulness_of_run, "BLOCK", 4)
    whole, broken = (copy_of(run, tmp_path / name) for name in ("whole", "broken"))
    shown = script("evaluate", whole, "--faithfulness", "--sentences", "10")
    assert shown.code == 0, shown
    of_block, firsts = Recorder.measure, []

    def stopping(self, lines, first):
        firsts.append(first)
        if len(firsts) == 3:
            raise KeyboardInterrupt
        return of_block(self, lines, first)

    monkeypatch.setattr(Recorder, "measure", stopping)
    with pytest.raises(KeyboardInterrupt):
        script("evaluate", broken, "--faithfulness", "--sentences", "10")
    assert len(json.loads((broken / UNFINISHED).read_text())["records"]) == 8
    out = tmp_path / "sheet.json"
    again = script("evaluate", broken, "--faithfulness", "--sentences", "10", "--json", out)
    assert firsts == [1, 5, 9, 9]
    assert again.out == shown.out
    assert not (broken / UNFINISHED).exists()
    assert (broken / SHEET).read_bytes() == (whole / SHEET).read_bytes()
    assert list(json.loads(out.read_text()).values()) == [json.loads((whole / SHEET).read_text())]
    # The same again is read from the run; other settings are measured anew.
    assert script("evaluate", broken, "--faithfulness", "--sentences", "10").out == shown.out
    assert len(firsts) == 4
    script("evaluate", broken, "--faithfulness", "--sentences", "3")
    assert firsts[4:] == [1]
    assert saved(RunDir(broken)).settings["sentences"] == 3


@pytest.fixture(scope="module", name="tagged")
def run_with_two_languages(tmp_path_factory):
    """A run to two languages from the same sentences, which end in a number; hardly trained."""
    folder = tmp_path_factory.mktemp("tagged")
    pairs = [(f"{a} 1{i}", f"{b} 1{i}") for i, (a, b) in enumerate(template_pairs(60))]
    write_corpus(folder, pairs, held_out=8)
    both = []
    for code in ("fr", "de"):
        files = {split: f"[{name}.en,{name}.{code}]" for split, name in SPLITS.items()}
        files |= {"source_language": "en", "target_language": code}
        both.append("{" + ",".join(f"{key}:{value}" for key, value in files.items()) + "}")
    for name in SPLITS.values():
        shutil.copy(folder / f"{name}.fr", folder / f"{name}.de")
    changes = [f"data.root={folder}", f"data.corpora=[{','.join(both)}]"]
    changes += ["data.placeholders=[number]", "tokenizer.vocab_size=120", "logging.samples=0"]
    changes += ["trainer.max_updates=2", "trainer.validate_every=2", "stages=[tokenize,train]"]
    return run_new(folder / "run", composed("debug", changes)).root


@pytest.mark.e2e
def test_symbols_are_no_function_words(tagged):
    """They have the first ids; a placeholder is copied, and tags are never written."""
    recorder = Recorder(seq2seq.load(tagged), ["fr"])
    source, target = recorder.tokenizers
    line, found = "the cat sees 12 .", "le chat 12 ."
    [src], [[*tgt]] = source.encode([line]), source.target_tokens([line], [found])
    ids = [token.id for token in tgt]
    pieces = dict(zip((token.piece.strip(SPACE) for token in tgt), ids, strict=True))
    kinds = dict(
        zip(
            ids,
            classes_of(recorder.tokenizers, recorder.function, [*src, EOS], [*ids, EOS]),
            strict=True,
        )
    )
    assert kinds[pieces["12"]] == "copied"
    symbols = all_symbols(config_of(tagged))
    first = EOS + 1 + len(symbols)
    assert {p.strip(SPACE) for p in target.pieces(range(EOS + 1, first))} == {*symbols}
    assert recorder.function == {*range(first, first + len(target) // 10)}
    assert "function" in kinds.values()


@pytest.mark.e2e
def test_each_language_has_its_own_sheet(tagged, script, tmp_path):
    own = copy_of(tagged, tmp_path / "run")
    args = (own, "--faithfulness", "--sentences", "3", "decode.max_ratio=1")
    sheets = {}
    for code in ("fr", "de", "fr"):
        assert script("evaluate", *args, "--target-language", code).code == 0
        sheets.setdefault(code, []).append((own / SHEET).read_bytes())
    assert sheets["fr"][0] == sheets["fr"][1]
    french, german = (json.loads(sheets[code][0]) for code in ("fr", "de"))
    assert french["settings"]["text"] == german["settings"]["text"]
    assert french["probability"] != german["probability"]


@pytest.mark.e2e
def test_the_attention_that_is_measured_is_part_of_a_sheet(
    tmp_path_factory, script, tmp_path, monkeypatch
):
    own = copy_of(layers_run(tmp_path_factory.getbasetemp()), tmp_path / "run")
    args = (own, "--faithfulness", "--sentences", "1", "decode.max_ratio=1", "decode.min_ratio=1")
    of_block, firsts = Recorder.measure, []

    def counted(self, lines, first):
        firsts.append(first)
        return of_block(self, lines, first)

    monkeypatch.setattr(Recorder, "measure", counted)
    found = []
    for layer in ("1", "2", "2"):
        assert script("evaluate", *args, f"attention.layer={layer}").code == 0
        found.append(saved(RunDir(own)))
    assert firsts == [1, 1]
    assert found[0].distance != found[1].distance
    assert found[1] == found[2]
    # A sheet of an older version, which does not know, is measured again.
    known = {k: v for k, v in found[2].settings.items() if not k.startswith(("attention", "lang"))}
    keep(RunDir(own), replace(found[2], settings=known))
    RunDir(own).write_json(UNFINISHED, {"settings": known, "records": [{}]})
    assert script("evaluate", *args, "attention.layer=2").code == 0
    assert firsts == [1, 1, 1]
    assert saved(RunDir(own)) == found[2]


@pytest.mark.e2e
def test_layers_and_heads_have_their_tables(tmp_path_factory, script, tmp_path):
    own = copy_of(layers_run(tmp_path_factory.getbasetemp()), tmp_path / "run")
    shown = script("evaluate", own, "--faithfulness").out.decode()
    for part in ("stay if uniform", "tau, integrated gradients", "attention rollout", "layer 2"):
        assert part in shown
    assert " of 4 heads could be uniform, one at a time" in shown
    sheet = saved(RunDir(own))
    assert np.shape(sheet.heads.stays) == np.shape(sheet.heads.agreement) == (2, 2)
    parts = RunDir(own), "own", seq2seq.load(own)
    found = describe_run(*parts, scored=True, linked=False)["faithfulness"]
    assert found["reading"] == reading(sheet)
    assert len(found["tables"]) == 6
    curves = {line["label"]: line["values"] for line in found["curves"]["sufficiency"]}
    assert curves["random"] == sheet.erasure["random"]["removed"].sufficiency.values
    assert describe_run(*parts, scored=False, linked=False)["faithfulness"] is None


@pytest.mark.e2e
def test_seeds_are_compared_along_the_references(run, script, tmp_path):
    """Here with an earlier checkpoint in place of another seed."""
    own, other = copy_of(run, tmp_path / "run"), f"{run}@update-120"
    shown = script("evaluate", own, "--faithfulness", "--sentences", "4", "--seeds", other)
    assert shown.code == 0, shown
    lines, references = (
        (own / f"corpus/test.{side}").read_text("utf-8").splitlines()[::5] for side in SIDES
    )
    pairs = list(zip(lines, references, strict=True))
    both = [list(seq2seq.load(name).force(pairs)) for name in (own, other)]
    apart = [
        np.abs(a.astype(float) - b)[:-1].sum(axis=1) / 2
        for a, b in zip(*([t.alignment for t in found] for found in both), strict=True)
    ]
    seeds = saved(RunDir(own)).seeds
    assert seeds.runs == 2
    assert seeds.distance == pytest.approx(np.concatenate(apart).mean())
    assert seeds.distance > 0.01
    assert f"Between 2 seeds {seeds.distance:.0%} of the weight" in shown.out.decode()


@pytest.mark.slow
def test_a_run_is_retrained_with_uniform_weights(run, script, tmp_path):
    """As the page says; its BLEU is stated beside that of the run."""
    names = [f"data.root={run.parent / 'tiny_corpus'}"]
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        names.append(f"data.{split}=[{name}.en,{name}.fr]")
    parts = "init.parts=[encoder,'decoder.[!a]*']"
    changes = ["tokenizer.vocab_size=120", "tokenizer.sampling=0", "trainer.ema_decay=0.9"]
    changes += ["attention=uniform", f"init.run={run}", parts, "trainer.freeze=[encoder]"]
    changes += ["trainer.max_updates=4", "trainer.validate_every=10"]
    flat = run_new(tmp_path / "flat", composed("debug", [*names, *changes])).root
    own = copy_of(run, tmp_path / "run")
    options = ["--faithfulness", "--sentences", "2", "--uniform"]
    shown = script("evaluate", own, *options, flat)
    assert shown.code == 0, shown
    values = [
        json.loads((each / "scores.json").read_text())["scores"]["BLEU"]["value"]
        for each in (own, flat)
    ]
    assert saved(RunDir(own)).uniform == Retrained("flat", values[1], values[0] - values[1])
    assert f"{values[1]:.1f} BLEU, {values[0] - values[1]:.1f} less" in shown.out.decode()
    assert_fails(script("evaluate", own, *options, run), 2, "has attention=additive, not uniform")


@pytest.mark.e2e
def test_what_has_no_sheet_is_refused_before_it_is_measured(run, script, monkeypatch):
    monkeypatch.setattr(Recorder, "measure", None)  # it takes minutes
    for args, part in (
        ([f"{run}+{run}", "--faithfulness"], "is an ensemble"),
        ([run, "--faithfulness", "--attention"], "cannot be combined with --attention"),
        ([run, "--sentences", "3"], "--sentences: is for --faithfulness"),
        ([run, "--seeds", run], "--seeds: is for --faithfulness"),
        ([run, "--faithfulness", "--sentences", "0"], "--sentences: less than one"),
        ([run, run, "--faithfulness", "--uniform", run], "of several runs"),
        ([run, "--faithfulness", "--uniform", run], "has attention=additive, not uniform"),
    ):
        assert_fails(script("evaluate", *args), 2, part)
    model = seq2seq.load(run)
    model.model = tiny_model(1, attention=FAMILY["fixed"])
    with pytest.raises(ConfigError, match="has no attention weights to change"):
        measured(model, ["a"])
