"""A short list of target words for each sentence: the lexicon, the lists, the search, the files."""

import itertools
import shutil
from collections import defaultdict
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import EOS, PAD, STACKED, tiny_model, tiny_transformer
from conftest import run as along
from runs import assert_fails, composed
from test_search import RULES, random_sources, search
from test_translate import PLAIN

import seq2seq
from seq2seq.alignment import lexicon as made
from seq2seq.alignment.ibm import ITERATIONS
from seq2seq.alignment.lexicon import lexicon
from seq2seq.cli.export import main as export
from seq2seq.config.schema import Backend, DecodeConfig
from seq2seq.data.batching import collate
from seq2seq.decoding.shortlist import DIRECTORY, FILE, SUGGESTED
from seq2seq.decoding.translate import for_search
from seq2seq.kernels import native
from seq2seq.kernels.search import FusedSearch
from seq2seq.kernels.torch_search import TorchSearch
from seq2seq.model.ensemble import Ensemble, Mixture
from seq2seq.model.protocols import Barred
from seq2seq.model.shortlist import Shortlist, ShortlistStepper
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, DataError, RunDirError

# The lexicon -------------------------------------------------------------------------------------


def random_corpus(seed: int, count: int = 30) -> list[tuple[list[int], list[int]]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(0, 5, (count, 2))
    return [(rng.integers(1, 6, i).tolist(), rng.integers(1, 7, j).tolist()) for i, j in sizes]


def ibm_counts(pairs) -> dict[tuple[int, int], float]:
    """Expected counts of IBM-1 in loops."""
    targets = {f for _, tgt in pairs for f in tgt}
    t = defaultdict(lambda: 1 / max(targets))
    for _ in range(ITERATIONS):
        counts, totals = defaultdict(float), defaultdict(float)
        for src, tgt in pairs:
            for f in tgt if src else ():
                words = [0, *src]
                total = sum(t[e, f] for e in words)
                for e in words:
                    counts[e, f] += t[e, f] / total
                    totals[e] += t[e, f] / total
        t = {(e, f): count / totals[e] for (e, f), count in counts.items()}
    return counts


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_lexicon_is_that_of_loops(seed, blocks, monkeypatch):
    pairs, most = random_corpus(seed), 4
    parts = [pairs]
    if blocks > 1:
        monkeypatch.setattr(made, "BLOCK_CELLS", 60)
        parts = [*made._blocks(pairs)]
        assert len(parts) >= blocks
        assert [pair for part in parts for pair in part] == pairs
    counts = defaultdict(float)
    for part in parts:
        for key, count in ibm_counts(part).items():
            counts[key] += count
    found = lexicon(iter(pairs), 7, 8, most)
    assert found.words.shape == found.probabilities.shape == (7, most)
    for e in range(1, 7):
        own = {f: count for (word, f), count in counts.items() if word == e}
        total = sum(own.values())
        best = sorted(own, key=lambda f: (-round(own[f], 12), f))[:most]
        expected = [own[f] / total for f in best] + [0.0] * (most - len(best))
        np.testing.assert_allclose(found.probabilities[e], expected, rtol=1e-6)
        assert found.words[e, : len(best)].tolist() == best
    assert not found.probabilities[0].any()  # the null word suggests nothing


def test_equally_probable_words_ascend():
    found = lexicon([([1], [5, 3, 4])], 2, 8, 2)
    assert found.words[1].tolist() == [3, 4]
    assert found.probabilities[1] == pytest.approx([1 / 3, 1 / 3])


# The lists ---------------------------------------------------------------------------------------


def random_shortlist(seed: int, size: int, vocab: int, most: int = 3) -> Shortlist:
    """One with ties and with source words that suggest little or nothing."""
    rng = np.random.default_rng(seed)
    others = [i for i in range(vocab) if i not in (PAD, EOS)]
    order = torch.tensor([EOS, *rng.permutation(others), PAD])
    words = torch.tensor(np.array([rng.permutation(others)[:most] for _ in range(vocab)]))
    p = torch.tensor(rng.integers(0, 5, (vocab, most)) / 8, dtype=torch.float32)
    return Shortlist.of(size, order, words, p), (order, words, p)


def in_plain_words(source, size, order, words, p) -> list[int]:
    best = defaultdict(float)
    for e in source:
        for f, probability in zip(words[e].tolist(), p[e].tolist(), strict=True):
            best[f] = max(best[f], probability)
    order = order.tolist()
    found = order[: size // 4]
    suggested = sorted((f for f in best if best[f] > 0), key=lambda f: (-best[f], f))
    for f in (*suggested, *order):
        if f not in found and len(found) < size:
            found.append(f)
    return sorted(found)


@pytest.mark.parametrize("size", [4, 9, 16, 39])
def test_a_list_has_frequent_words_then_the_most_probable_ones(size):
    for seed in range(5):
        shortlist, parts = random_shortlist(seed, size, vocab=40)
        sources = random_sources(seed, (6, 1, 9, 3), 40)
        src, mask = torch.full((4, 9), 17), torch.zeros(4, 9, dtype=torch.bool)
        for i, source in enumerate(sources):
            src[i, : len(source)], mask[i, : len(source)] = torch.tensor(source), True
        expected = [in_plain_words(source, size, *parts) for source in sources]
        assert shortlist.lists(src, mask).tolist() == expected


# The search --------------------------------------------------------------------------------------


def fused(model, dtype=torch.float32):
    return FusedSearch(model.encoder, model.decoder, dtype)


def in_c(model):
    if native.library() is None:
        pytest.skip("no C compiler")
    return fused(model.float())


def in_torch(model):
    stepper = fused(model.double(), torch.float64)
    assert isinstance(stepper.engine, TorchSearch)
    return stepper


def searched(model):
    return model.for_search()


def with_itself(model):
    return Ensemble([model, model], Mixture([0.5, 0.5], of_logs=False)).eval().for_search()


MODELS = {
    "C": (in_c, tiny_model, {}),
    "C, no bias": (in_c, tiny_model, {"bias": False, "output_rank": None}),
    "torch": (in_torch, tiny_model, {}),
    "bf16": (lambda model: fused(model.float(), torch.bfloat16), tiny_model, {}),
    "reference": (searched, tiny_model, {}),
    "stacked": (searched, tiny_model, {"decoder": STACKED["between"]}),
    "Transformer": (searched, tiny_transformer, {}),
    "ensemble": (with_itself, tiny_model, {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_wide_beam_finds_what_exhaustion_of_the_list_finds(name):
    make, build, changes = MODELS[name]
    vocab, size, bound = 9, 4, 3
    model = build(5, vocab=vocab, **changes)
    exact = deepcopy(model)
    shortlist, _ = random_shortlist(2, size, vocab)
    sources = random_sources(4, [2, 2, 2], vocab)
    lists = shortlist.lists(torch.tensor(sources), torch.ones(3, 2, dtype=torch.bool)).tolist()
    assert len({*map(tuple, lists)}) > 1
    never = lists[0][-1]  # counts in the sum, and is not written
    forbidden = (PAD, never)
    rules = replace(RULES, beam_size=100, min_ratio=0.0, max_ratio=bound / 2, forbidden=forbidden)
    found = search(ShortlistStepper(make(model), shortlist), sources, rules)
    for source, words, hypotheses in zip(sources, lists, found, strict=True):
        others = [word for word in words if word not in (EOS, never)]
        targets = [
            (*target, EOS)
            for length in range(bound)
            for target in itertools.product(others, repeat=length)
        ]
        scores = dict(zip(targets, of_list(exact, source, targets, words), strict=True))
        assert len(hypotheses) == len(targets)
        tolerance = 0.05 if name == "bf16" else 1e-4
        for h in hypotheses:
            assert h.token_log_probs == pytest.approx(scores[h.ids], abs=tolerance)
        if name != "bf16":
            ranked = sorted(scores, key=lambda target: -sum(scores[target]))
            assert [h.ids for h in hypotheses] == ranked


def of_list(model, source, targets, words) -> list[list[float]]:
    """Log-probabilities along targets if all other words had none, from those of all words."""
    batch = collate([(source, target) for target in targets], PAD)
    with torch.no_grad():
        log_p, _, _ = along(model, batch)
    own = log_p[:, words].numpy()
    own = own - np.logaddexp.reduce(own, axis=1, keepdims=True)
    rows = iter(own.tolist())
    return [[next(rows)[words.index(word)] for word in target] for target in targets]


@pytest.mark.parametrize("name", ["C", "torch", "reference"])
def test_all_log_probabilities_are_those_of_the_best(name):
    make, build, changes = MODELS[name]
    model, vocab = make(build(1, vocab=30, **changes)), 30
    stepper = ShortlistStepper(model, random_shortlist(1, 12, vocab)[0])
    src = torch.tensor(random_sources(1, [4, 4], vocab))
    with torch.inference_mode():
        prediction, _ = stepper.step(
            torch.full((2,), PAD), stepper.begin(src, torch.ones_like(src, dtype=torch.bool))
        )
        log_p = prediction.log_probs()
        early = torch.tensor([True, False])
        best = prediction.best(50, Barred(torch.tensor([PAD]), EOS, early))
    assert ((log_p > -torch.inf).sum(dim=1) == 12).all()
    torch.testing.assert_close(log_p.exp().sum(dim=1), torch.ones(2).to(log_p))
    log_p = log_p.clone()
    log_p[0, EOS] = -torch.inf
    values, words = log_p.topk(12, dim=1)
    assert best.words.shape == (2, 12)
    torch.testing.assert_close(best.log_probs.to(log_p), values, atol=1e-5, rtol=0)
    assert torch.equal(best.words[:, :11], words[:, :11])


def test_a_translation_is_the_same_whatever_its_mates():
    model, vocab = tiny_model(2, vocab=200, hidden_size=24, readout_size=16, scale=0.3), 200
    stepper = ShortlistStepper(in_c(model), random_shortlist(3, 40, vocab, most=30)[0])
    sources = random_sources(3, (6, 3, 9, 1, 4, 12, 2), vocab)
    rules = replace(RULES, beam_size=5, n_best=5)
    alone = [search(stepper, [source], rules)[0] for source in sources]
    for size in (2, 3, 7):
        for at in range(0, len(sources), size):
            found = search(stepper, sources[at : at + size], rules)
            for ours, theirs in zip(found, alone[at : at + size], strict=True):
                assert [h.ids for h in ours] == [h.ids for h in theirs]
                for one, other in zip(ours, theirs, strict=True):
                    # Not to the byte: the encoder's matmuls depend on the batch.
                    assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-5)


def test_the_output_layer_gives_a_row_the_same_bytes_whatever_the_others():
    model = tiny_model(2, vocab=200, readout_size=37, output_rank=None, scale=0.3)
    engine = in_c(model).engine
    generator = torch.Generator().manual_seed(1)
    t = torch.randn(3, 5, 37, generator=generator)
    lists = torch.stack([torch.randperm(200, generator=generator)[:30].sort()[0] for _ in range(3)])

    def best(t, lists):
        rows = t.flatten(0, 1)
        barred = Barred(torch.tensor([PAD]), EOS, torch.zeros(len(rows)).bool())
        return engine.best_listed(rows, lists, 4, barred)

    every = best(t, lists)
    for i, k in itertools.product(range(3), range(5)):
        alone = best(t[i : i + 1, k : k + 1], lists[i : i + 1])
        for x, y in zip(alone, every, strict=True):
            assert torch.equal(x[0], y[5 * i + k])


def test_models_search_with_the_shortlist_they_have():
    shortlist, _ = random_shortlist(1, 5, 7)
    model = tiny_model(1, backend=Backend.auto).float()
    ensemble = Ensemble([model, model], Mixture([0.5, 0.5], of_logs=False)).eval()
    for each in (model, ensemble):
        assert not isinstance(for_search(each, DecodeConfig()), ShortlistStepper)
    ensemble.shortlist = shortlist
    stepper = for_search(ensemble, DecodeConfig())
    assert stepper.shortlist is shortlist
    assert not any(isinstance(member, ShortlistStepper) for member in stepper.inner.members)
    model.shortlist = shortlist
    assert isinstance(for_search(model, DecodeConfig()).inner, FusedSearch)


# Runs --------------------------------------------------------------------------------------------

N = "decode.shortlist=20"


@pytest.fixture
def copied(run, tmp_path) -> Path:
    """A run with a shortlist."""
    shutil.copytree(run, tmp_path / "run")
    seq2seq.load(tmp_path / "run", [N])
    return tmp_path / "run"


def details(model) -> list[list[tuple]]:
    return [[(c.text, c.token_log_probs) for c in t.candidates] for t in model.translate(PLAIN)]


@pytest.mark.e2e
def test_a_run_makes_it_once_and_keeps_it(run, tmp_path, caplog):
    directory = shutil.copytree(run, tmp_path / "run")
    first = seq2seq.load(directory, [N])
    [record] = caplog.records
    message = record.getMessage()
    assert message.startswith("made the shortlist in ")
    assert message.endswith(f" s, of 300 training pairs: {directory / DIRECTORY}")
    shutil.rmtree(directory / "tokens")
    again = seq2seq.load(directory, [N])
    assert len(caplog.records) == 1
    assert details(first) == details(again)
    assert details(first) != details(seq2seq.load(directory))


@pytest.mark.e2e
def test_words_of_the_lists_alone_are_written_in_any_batch(copied):
    model = seq2seq.load(copied, [N, "decode.n_best=3", "decode.beam_size=6"])
    one = seq2seq.load(
        copied, [N, "decode.n_best=3", "decode.beam_size=6", "decode.batch_sentences=1"]
    )
    assert details(model) == details(one)
    source, target = model.tokenizers
    for line, t in zip(PLAIN, model.translate(PLAIN), strict=True):
        src = torch.tensor([*source.encode([line])[0], 2])[None]
        words = model.model.shortlist.lists(src, torch.ones_like(src, dtype=torch.bool))
        pieces = {*target.pieces(words[0].tolist())}
        assert len(words[0]) == 20
        assert all({*c.tokens[:-1]} <= pieces for c in t.candidates)


@pytest.mark.e2e
def test_a_list_of_all_words_is_a_search_among_all(run):
    model = seq2seq.load(run, ["decode.shortlist=120"])
    assert model.model.shortlist is None
    assert not (run / DIRECTORY).exists()
    assert details(model) == details(seq2seq.load(run))


@pytest.mark.e2e
def test_other_settings_of_the_search_see_the_list(copied):
    for setting in ("decode.no_repeat_ngram=1", "decode.mbr=chrf", "decode.forbid_unknown=true"):
        beam = ["decode.beam_size=4", "decode.n_best=4", setting]
        listed, plain = (seq2seq.load(copied, [*x, *beam]) for x in ([N], []))
        pieces = listed.tokenizers[1]
        for t in listed.translate(PLAIN):
            src = torch.tensor([*listed.tokenizers[0].encode([t.source])[0], 2])[None]
            words = listed.model.shortlist.lists(src, torch.ones_like(src, dtype=torch.bool))
            known = {*pieces.pieces(words[0].tolist())}
            assert all({*c.tokens[:-1]} <= known for c in t.candidates)
        assert details(listed) != details(plain)


@pytest.mark.e2e
def test_forced_scores_are_those_of_all_words(copied):
    pairs = [(line, line) for line in PLAIN]
    listed, plain = (seq2seq.load(copied, x).force(pairs) for x in ([N], []))
    assert [t.score for t in listed] == [t.score for t in plain]


@pytest.mark.e2e
def test_an_ensemble_takes_the_list_of_its_first_run(run, copied, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    model = seq2seq.load([copied, other], [N])
    assert not (other / DIRECTORY).exists()
    assert details(model) == details(seq2seq.load([copied, copied], [N]))
    assert details(model) != details(seq2seq.load([copied, other]))


@pytest.mark.e2e
def test_a_model_exported_from_the_run_has_it(copied, tmp_path, script):
    expected = details(seq2seq.load(copied, [N]))
    out = tmp_path / "model"
    export([str(copied), str(out), "--format", "model"])
    assert details(seq2seq.load(out, [N])) == expected
    assert f"{DIRECTORY}/{FILE}  ok" in script("verify", out).out.decode()
    shutil.rmtree(out / DIRECTORY)
    fix = f"Decode the run that the model is from with decode.shortlist; copy its {DIRECTORY}/."
    what = "missing, and so are the training pairs that it is made of"
    result = script("decode", out, N, stdin=b"a\n")
    assert_fails(result, 4, f"{out / DIRECTORY}: {what}. {fix}")
    shutil.copytree(copied / DIRECTORY, out / DIRECTORY)
    assert details(seq2seq.load(out, [N])) == expected


def tampered(directory: Path, **changes) -> RunDirError:
    """The error after tensors of a shortlist were changed, its checksums made to fit."""
    run = RunDir.open(directory)
    tensors = safetensors.torch.load_file(directory / DIRECTORY / FILE) | changes
    about = seq2seq.run.checksums.read_manifest(directory / DIRECTORY / "manifest.json")["about"]
    run.commit_directory(DIRECTORY, {FILE: safetensors.torch.save(tensors)}, about)
    with pytest.raises(RunDirError) as error:
        seq2seq.load(directory, [N])
    return error.value


@pytest.mark.e2e
def test_a_damaged_one_is_an_error_of_one_line(copied, script):
    path = copied / DIRECTORY / FILE
    whole = path.read_bytes()
    for damaged, what in (
        (whole[:-1], f"is {len(whole) - 1} bytes, expected {len(whole)}"),
        (whole[:-1] + b"\xff", "SHA-256 differs from the recorded one"),
    ):
        path.write_bytes(damaged)
        assert_fails(script("decode", copied, N, stdin=b"a\n"), 4, f"{path}: {what}")
    path.unlink()
    assert_fails(script("decode", copied, N, stdin=b"a\n"), 4, f"{path}: missing")


@pytest.mark.e2e
def test_checksums_that_fit_do_not_make_it_valid(copied):
    fix = f"Delete {DIRECTORY}/: a run that has its training pairs makes it again."
    words = torch.zeros(120, SUGGESTED, dtype=torch.int32)
    wrong, out_of_range = (
        "does not fit the vocabularies",
        "has ids or probabilities that are out of",
    )
    for changes, what in (
        ({"words": words[1:]}, wrong),
        ({"words": words.long()}, wrong),
        ({"more": words}, wrong),
        ({"order": torch.zeros(120, dtype=torch.int32)}, out_of_range),
        ({"words": words + 120}, out_of_range),
        ({"words": words - 1}, out_of_range),
        ({"order": torch.arange(120).int(), "probabilities": words + torch.nan}, out_of_range),
    ):
        good = copied.with_name("good")
        shutil.copytree(copied, good)
        error = tampered(good, **changes)
        assert what in error.what
        assert error.fix == fix
        shutil.rmtree(good)


@pytest.mark.e2e
def test_one_of_other_vocabularies_is_refused(copied):
    run = RunDir.open(copied)
    files = {FILE: (copied / DIRECTORY / FILE).read_bytes()}
    run.remove_directory(DIRECTORY)
    run.commit_directory(DIRECTORY, files, {"tokenizers": {}})
    with pytest.raises(RunDirError, match="is of other vocabularies"):
        seq2seq.load(copied, [N])


@pytest.mark.e2e
def test_what_it_does_not_go_with_is_refused(copied):
    with pytest.raises(ConfigError, match=r"decode\.shortlist is for beam search"):
        seq2seq.load(copied, [N, "decode.sample=true"])
    with pytest.raises(ConfigError, match=r"decode\.shortlist does not go with data\.placeholders"):
        composed("quickstart", ["decode.shortlist=300", "data.placeholders=[url]"])
    model = seq2seq.load(copied, [N])
    for asks in ({"prefix": "le"}, {"required": [["chat"]]}, {"forbidden": ["chat"]}):
        with pytest.raises(
            DataError, match=r"shortlist supports no prefix and no word constraints"
        ):
            model.translate(seq2seq.Request(PLAIN[0], **asks))
