"""The queue behind `seq2seq play`, and its command line: no model, no server."""

import threading
from importlib.metadata import PackageNotFoundError

import pytest

from seq2seq.cli import play
from seq2seq.play.engine import MAX_WAITING, AbandonedError, Engine, SupersededError
from seq2seq.run.errors import DataError, InternalError, PlatformError, UsageError


class Held:
    """Work that waits until it is let go or is not wanted."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Event()
        self.batches: list[list[str]] = []

    def __call__(self, questions, wanted):
        texts = [getattr(question, "source", question) for question in questions]
        self.batches.append(texts)
        self.begun.set()
        while not self.go.wait(0.01):
            if not wanted():
                raise AbandonedError
        if "bad" in texts:
            raise DataError("sentence", "is bad", "Ask for less.")
        if "bug" in texts:
            raise ZeroDivisionError("of zero")
        return [{"text": text} for text in texts]


@pytest.fixture
def engine():
    held = Held()
    engine = Engine({"quick": held, "full": held}, 3)
    yield engine, held
    engine.close()


def test_a_newer_question_replaces_an_older_one_even_at_work(engine):
    engine, held = engine
    first = engine.ask("quick", "a", "page")
    assert held.begun.wait(9)
    second, other = engine.ask("quick", "b", "page"), engine.ask("full", "c", "page")
    assert isinstance(first.exception(9), SupersededError)
    third = engine.ask("quick", "d", "page")
    held.go.set()
    assert third.result(9) == {"text": "d"}
    assert other.result(9) == {"text": "c"}
    assert isinstance(second.exception(9), SupersededError)


def test_quick_questions_go_first_but_not_always(engine):
    engine, held = engine
    engine.ask("full", "0", "0")
    assert held.begun.wait(9)
    asked = [("full", "1"), ("quick", "2"), ("quick", "3"), ("quick", "4"), ("quick", "5")]
    answers = [engine.ask(kind, text, text) for kind, text in asked]
    held.go.set()
    assert [answer.result(9)["text"] for answer in answers] == ["1", "2", "3", "4", "5"]
    assert held.batches == [["0"], ["2", "3", "4"], ["1"], ["5"]]


def test_a_bad_question_fails_alone(engine, caplog):
    engine, held = engine
    engine.ask("full", "0", "0")
    assert held.begun.wait(9)
    good, bad, bug = (engine.ask("full", text, text) for text in ("good", "bad", "bug"))
    held.go.set()
    assert good.result(9) == {"text": "good"}
    assert isinstance(bad.exception(9), DataError)
    assert isinstance(bug.exception(9), InternalError)
    assert "ZeroDivisionError" in str(bug.exception())
    [record] = caplog.records
    assert record.exc_info[0] is ZeroDivisionError


def test_the_queue_ends_and_closing_gives_up(engine):
    engine, held = engine
    waiting = [engine.ask("full", "a", "0")]
    assert held.begun.wait(9)
    waiting += [engine.ask("full", "a", str(i)) for i in range(1, MAX_WAITING + 1)]
    with pytest.raises(PlatformError, match="too many people ask at once"):
        engine.ask("full", "b", "b")
    engine.close()
    assert not any(answer.done() and not answer.exception() for answer in waiting)


# The command --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b", "c"], "3 runs are named. Give RUN, or two of them."),
        (["decode.beam_size=3"], "0 runs are named"),
    ],
)
def test_one_run_or_two(words, message):
    with pytest.raises(UsageError, match=message):
        play.parse(words)


def test_what_it_needs_is_named(monkeypatch):
    def missing(name):
        raise PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", missing)
    with pytest.raises(
        PlatformError, match=r"starlette: is not installed.*rnnsearch-seq2seq\[play\]"
    ):
        play.main(["RUN"])


def test_an_address_that_cannot_be_used_is_an_error():
    with play.listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PlatformError, match=f"cannot serve at 127.0.0.1:{port} "):
            play.listen("127.0.0.1", port)
    with pytest.raises(UsageError, match="70000 is not a port"):
        play.listen("127.0.0.1", 70_000)
