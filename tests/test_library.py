"""A loaded model as a library: one sentence or many, checked arguments, copies, threads, forks."""

import copy
import multiprocessing
import os
import pickle
import signal
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import seq2seq
from seq2seq.decoding.translation import Translation
from seq2seq.run.errors import RunDirError, UsageError

pytestmark = pytest.mark.e2e

LINES = ["the cat sees the dog .", "the teacher waits for the boy today ."] * 20
THREADED = ["the cat sees the dog . " * n for n in range(1, 9)]


@pytest.fixture(scope="module", name="model")
def loaded(run):
    return seq2seq.load(run, ["device=cpu"])


@pytest.fixture(scope="module", name="expected")
def serial(model) -> list[str]:
    return texts(model)


def texts(model, lines=LINES) -> list[str]:
    return [x.text for x in model.translate(lines)]


def test_N1_a_string_gives_one_translation_and_a_list_gives_a_list(model):
    [expected] = model.translate([LINES[0]])
    found = model.translate(LINES[0])
    assert isinstance(found, Translation)
    assert found.text == expected.text
    assert model.translate(seq2seq.Request(LINES[0])).text == expected.text
    assert model.translate([]) == []


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (("a", "b"), "pairs: are a single pair. "),
        ("ab", "pairs: are a single str. "),
        (7, "pairs: are a single int. "),
    ],
)
def test_N1_force_refuses_at_once_what_is_not_a_list(model, pairs, message):
    with pytest.raises(UsageError) as caught:
        model.force(pairs)
    assert str(caught.value) == f"{message}Give a list: [(source, target), ...]."


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", "b", "c"), ("a", b"b"), None])
def test_N1_force_names_what_is_not_a_pair(model, pair):
    with pytest.raises(UsageError, match=r"^pairs, number 2: is "):
        list(model.force([("a", "b"), pair]))


@pytest.mark.parametrize("lines", [b"the cat", None, ["a", b"b"], [("a", "b")]])
def test_N1_translate_names_what_is_not_text(model, lines):
    with pytest.raises(UsageError, match=r"^lines(, number \d)?: (is|are) "):
        model.translate(lines)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_translate_like_the_model(model, expected, copied):
    assert texts(copied(model)) == expected


def test_threads_share_a_model(layers_run):
    """The table of sinusoids grows while others read it."""
    model = seq2seq.load(layers_run, ["device=cpu", "decode.max_ratio=1"])
    expected = texts(model, THREADED)
    fresh = copy.deepcopy(model)
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: texts(fresh, THREADED), range(8))
    assert all(each == expected for each in found)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_translates_after_threads_have_run(model, expected):
    torch.set_num_threads(2)
    try:
        assert texts(model) == expected  # starts the threads that a fork lacks
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            os._exit(texts(model) != expected)
    finally:
        torch.set_num_threads(1)
    end = time.monotonic() + 120
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            pytest.fail("the fork hangs")
        time.sleep(0.05)
    assert os.waitstatus_to_exitcode(ended[1]) == 0


def test_a_spawned_process_gets_the_model(model, expected):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(texts, (model,)) == expected


def test_an_error_of_a_spawned_process_arrives(tmp_path):
    """A pool hangs if an error cannot be rebuilt from its pickle."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        loaded = pool.map_async(seq2seq.load, [str(tmp_path / "nonexistent")])
        with pytest.raises(RunDirError, match=r"nonexistent: holds no run"):
            loaded.get(timeout=120)
