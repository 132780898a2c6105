"""Preparing in several processes: the same bytes for any number, and errors as from one."""

import os
import signal

import pytest
from runs import composed, run_new, template_pairs, write_corpus

from seq2seq.config.schema import Stage
from seq2seq.run import workers
from seq2seq.run.errors import DataError, PlatformError
from seq2seq.run.workers import in_order, mapped

pytestmark = pytest.mark.skipif(not workers.FORKS, reason="workers are forks, which only Linux has")

TOKENIZERS = {
    "words": ["tokenizer=words", "tokenizer.vocab_size=30"],
    "subwords": ["tokenizer=sentencepiece", "tokenizer.vocab_size=100"],
    "characters": ["tokenizer=characters", "data.max_words=31"],
}
FILTERS = ["data.max_words=9", "data.drop_duplicates=true", "data.on_bad_line=skip"]


@pytest.mark.e2e
@pytest.mark.parametrize("limit", ["null", "50"])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_any_number_of_workers_gives_the_same_bytes(tmp_path, monkeypatch, kind, limit):
    monkeypatch.setattr(workers, "CHUNK", 7)
    pairs = template_pairs(140)
    names = write_corpus(tmp_path, [*pairs, *pairs[-20:]])
    for side in ("en", "fr"):
        with (tmp_path / f"train.{side}").open("ab") as file:
            file.write(b"\n" + (b"\xff bad\n" if side == "en" else b"bad\n") + b"the last .\n")
    trees = []
    for count in (1, 3):
        cfg = composed("debug", [*names, *FILTERS, *TOKENIZERS[kind], f"data.limit={limit}"])
        cfg.stages, cfg.data.workers = [Stage.tokenize], count
        root = run_new(tmp_path / f"run{count}", cfg).root
        files = (path for path in root.rglob("*") if path.is_file())
        trees.append({str(path.relative_to(root)): path.read_bytes() for path in files})
        for own in ("config.yaml", "run.json", "run.lock", "checksums.json"):
            del trees[-1][own]
    rows = len(trees[0]["tokens/train.source.ends"]) // 8
    assert rows == 50 if limit == "50" else rows > 60
    assert (b'"duplicate": 0' in trees[0]["data_report.json"]) == (limit == "50")
    assert trees[1] == trees[0]


def test_results_come_in_order_and_errors_where_they_belong():
    def items():
        yield from range(7)
        raise DataError("file:8", "is unreadable", "Repair it.")

    def work(item: int) -> tuple[int, int]:
        return item, os.getpid()

    found = []
    with pytest.raises(DataError, match="file:8"):
        found.extend(in_order(work, items(), 3))
    results = list(in_order(work, range(7), 3))
    assert [item for item, _ in results] == [*range(7)]
    assert len({pid for _, pid in results} - {os.getpid()}) == 3
    # One item is not worth a process.
    assert list(mapped(work, [1], 3)) == [(1, os.getpid())]
    assert list(mapped(work, [1, 2], 1)) == [(1, os.getpid()), (2, os.getpid())]


def test_what_a_worker_raises_is_raised_here():
    def work(item: int) -> int:
        if item == 3:
            raise DataError("item", f"is {item}", "Take another.")
        return os.kill(os.getpid(), signal.SIGKILL) if item == 5 else item

    taken = []
    with pytest.raises(DataError, match=r"item: is 3\. Take another"):
        taken.extend(in_order(work, range(5), 2))
    assert taken == [0, 1, 2]
    with pytest.raises(PlatformError, match=r"a process has died \(exit code -9\)"):
        list(in_order(work, [0, 5, 1], 2))
