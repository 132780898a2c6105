"""The model against what the authors' own code computed, and files of that kind from the oracle.

The authors' numbers lie beside the repository; tests of them are skipped where they do not.
"""

import dataclasses
import functools
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from authors_files import (
    KINDS,
    OURS_TO_AUTHORS,
    WHOLE_OUTPUT,
    authors_oracle,
    made,
    turned,
    written,
)
from conftest import with_values
from runs import ROOT, assert_fails, call, run_here

from groundhog import NAMES, Reference, compute, deviations, read_reference
from seq2seq.config.schema import Backend, Reset, StateWord

VECTORS = ROOT.parent / "shared/data/authors_code_vectors"


def vectors(name: str) -> Path:
    if not (VECTORS / name).is_file():
        pytest.skip(f"{VECTORS / name} is not here; it lies beside the repository")
    return VECTORS / name


# The authors' own numbers -----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["rnnsearch", "rnnencdec"])
def witness(request) -> Reference:
    return read_reference(vectors(f"{request.param}.npz"))


def test_the_map_of_names_is_complete():
    assert NAMES == OURS_TO_AUTHORS | WHOLE_OUTPUT


def test_every_number_of_a_file_is_compared(witness):
    with np.load(witness.path) as file:
        names = {key for key in file if not key.startswith("param:")}
        assert {f"param:{NAMES[ours]}" for ours in witness.weights} | names == set(file)
    assert set(witness.results) == names - {"src", "tgt", "src_mask", "tgt_mask", "kind"}
    assert not witness.absent
    assert witness.name == {"rnnsearch": "RNNsearch", "rnnencdec": "RNNencdec"}[witness.path.stem]


@pytest.mark.parametrize("backend", [Backend.reference, Backend.fused])
def test_model_computes_what_the_authors_code_computes(witness, backend):
    ours, theirs = compute(witness, backend), witness.results
    assert float(ours["cost"]) == pytest.approx(float(theirs["cost"]), rel=1e-6)
    # `word_probs` is rounded as a number near 1: it is 6e-8 off their own `distribution`.
    np.testing.assert_allclose(ours["word_probs"], theirs["word_probs"], rtol=0, atol=1e-7)
    for key in {"distribution", "alignment"} & set(theirs):
        np.testing.assert_allclose(ours[key], theirs[key], rtol=3e-6, atol=0)


@pytest.mark.parametrize("backend", [Backend.reference, Backend.fused])
def test_gradients_are_those_of_the_authors_code(witness, backend):
    ours = compute(witness, backend)
    for name in witness.weights:
        key = f"grad:{NAMES[name]}"
        scale = np.abs(witness.results[key]).max()
        error = np.abs(ours[key] - witness.results[key]).max()
        assert scale > 1e-3, f"{key}: nothing to compare"
        assert error < 3e-6 * scale, f"{key}: {error / scale:.1e}"


@pytest.mark.parametrize(
    "change", [{"state_word": StateWord.previous}, {"reset": Reset.after}], ids=str
)
def test_the_other_readings_are_not_the_authors(witness, change):
    other = dataclasses.replace(witness, config=with_values(witness.config, **change))
    ours = compute(other, Backend.reference)
    assert np.abs(ours["distribution"] - witness.results["distribution"]).max() > 0.01


def test_the_oracle_computes_what_the_authors_code_computes(witness):
    """So the yardstick of the other tests is itself measured."""
    with np.load(witness.path) as file:
        data = dict(file)
    weights = {
        ours: turned(ours, data[f"param:{theirs}"]).astype(np.float64)
        for ours, theirs in OURS_TO_AUTHORS.items()
        if f"param:{theirs}" in data
    }
    oracle, cost = authors_oracle(weights, search=witness.name == "RNNsearch"), 0.0
    for b in range(data["src"].shape[1]):
        Tx, Ty = (int(data[f"{side}_mask"][:, b].sum()) for side in ("src", "tgt"))
        forced = oracle.force(data["src"][:Tx, b].tolist(), data["tgt"][:Ty, b].tolist())
        np.testing.assert_allclose(forced.distributions, data["distribution"][:Ty, b], rtol=3e-6)
        if "alignment" in data:
            alignments = data["alignment"][:Ty, :Tx, b]
            np.testing.assert_allclose(forced.alignments, alignments, rtol=3e-6)
        cost += forced.cost
    assert cost == pytest.approx(float(data["cost"]), rel=1e-6)


# Files of other sizes ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [Backend.reference, Backend.fused])
@pytest.mark.parametrize("name", KINDS)
def test_the_model_of_a_file_is_the_oracle(name, backend, tmp_path):
    reference = read_reference(written(tmp_path, made(name)))
    assert not reference.absent
    found = deviations(compute(reference, backend), reference.results)
    assert set(found) == set(reference.results)
    assert max(found.values()) < 1e-11, found


# How far apart ----------------------------------------------------------------------------------


# The script -------------------------------------------------------------------------------------


@pytest.fixture
def check(monkeypatch):
    return functools.partial(run_here, monkeypatch, "check_authors_code")


def test_the_script_agrees_with_every_kind(check, tmp_path):
    paths = []
    for i, name in enumerate(KINDS):
        (tmp_path / str(i)).mkdir()
        paths.append(written(tmp_path / str(i), made(name)))
    result = check(*paths)
    assert (result.code, result.err) == (0, ""), result
    out = result.out.decode()
    assert out.count("\ngrad:") == sum(key.startswith("grad:") for n in KINDS for key in made(n))
    assert f"{paths[0]}: RNNsearch, 40 parameters\n" in out
    assert "Kx=5 Ky=3 m=3 n=2 n'=5 l=2 r=4 B=2 Tx=3 Ty=3\n" in out
    assert f"{paths[3]}: RNNencdec, 30 parameters\n" in out
    assert "differs" not in out
    assert "not in the file" not in out


@pytest.mark.parametrize("key", ["grad:D_dec_transition_0", "param:b_dec_deep_softmax", "cost"])
def test_one_changed_number_is_found(check, tmp_path, key):
    arrays = dict(made("search, ragged"))
    arrays[key] = arrays[key].copy()
    arrays[key].flat[0] += 1e-3
    (tmp_path / "sound").mkdir()
    sound = written(tmp_path / "sound", made("encoder-decoder, one word"))
    path = written(tmp_path, arrays)
    result = check(sound, path)
    assert result.code == 1
    assert result.err.startswith(f"error: {path}: the model is ")
    assert "more than 1e-05. 1 of 2 files differ" in result.err
    marked = [row.split()[0] for row in result.out.decode().splitlines() if row.endswith("differs")]
    assert "distribution" in marked if key.startswith("param:") else marked == [key]


def changed(key: str, change) -> dict[str, np.ndarray]:
    arrays = dict(made("search, ragged"))
    arrays[key] = change(arrays[key])
    return arrays


def without(*keys: str) -> dict[str, np.ndarray]:
    return {k: v for k, v in made("search, ragged").items() if not k.startswith(keys)}


def with_first(value) -> object:
    """Another first entry."""

    def change(array: np.ndarray) -> np.ndarray:
        copy = array.copy()
        copy.flat[0] = value
        return copy

    return change


W_A, U = "param:B_dec_transition_0", "param:W_enc_transition_0"
NEW = {"param:W_new": np.ones(2)}
SHORT = {k: made("search, ragged")[k][:, :1] for k in ("tgt", "tgt_mask")}
REFUSED = [
    (lambda: without("src"), "'src'"),
    (lambda: without(W_A), "'param:B_dec_transition_0'"),
    (lambda: without("param:", "grad:"), "'W_0_enc_approx_embdr'"),
    (lambda: without("grad:", "cost", "word", "dist", "align"), "(no results to compare)"),
    (lambda: without() | NEW, "(param:W_new has no place in it)"),
    (lambda: changed(W_A, lambda x: x.T), "size mismatch for decoder.attention.W_a.weight"),
    (lambda: changed("grad:D_dec_transition_0", np.transpose), "has the shape (5, 1), not (1, 5)"),
    (lambda: changed("distribution", lambda x: x[..., 1:]), "distribution has the shape (5, 2)"),
    (lambda: changed("src", with_first(5)), "(an id of src is outside of 0 to 4)"),
    (lambda: changed("tgt", with_first(-1)), "(an id of tgt is outside of 0 to 2)"),
    (lambda: without() | SHORT, "is not a file of the authors' numbers"),
    (lambda: without() | {"more": np.array([{}])}, "numbers (Object arrays"),
]


@pytest.mark.parametrize(("arrays", "message"), REFUSED, ids=[text for _, text in REFUSED])
def test_a_file_that_does_not_fit_is_refused_in_one_line(check, tmp_path, arrays, message):
    path = written(tmp_path, arrays())
    assert_fails(check(path), 3, f"error: {path}: ", message)


def damaged() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **made("search, ragged"))
    data = bytearray(buffer.getvalue())
    data[len(data) // 3] ^= 0xFF
    return bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "numbers (No data left in file)"),
        (pickle.dumps([1, 2]), "numbers (This file contains pickled"),
        (damaged, "is not a file of the authors' numbers ("),
        (lambda: damaged()[:2000], "is not a file of the authors' numbers ("),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(check, tmp_path, content, message):
    path = tmp_path / "numbers.npz"
    if content is not None:
        path.write_bytes(content() if callable(content) else content)
    assert_fails(check(path), 3, f"error: {path}: ", message)


def test_a_single_array_is_refused(check, tmp_path):
    np.save(tmp_path / "numbers.npy", np.ones(3))
    assert_fails(check(tmp_path / "numbers.npy"), 3, "'W_0_enc_approx_embdr'")


def test_a_file_is_needed(check):
    assert check().code == 2


@pytest.mark.e2e
def test_the_command_of_the_readme():
    paths = [vectors("rnnsearch.npz"), vectors("rnnencdec.npz")]
    result = call(ROOT / "scripts/check_authors_code.py", *paths, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.count(b"\ngrad:") == 70
