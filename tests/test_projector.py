"""Tables of word vectors: bounded, and one line for each word whatever its letters are."""

import numpy as np
import pytest
import torch
from runs import config_of, tiny_run

from seq2seq.decoding.pretrained import load
from seq2seq.evaluation import projector
from seq2seq.run.directory import RunDir


class Odd:
    """A vocabulary of what could break a table."""

    PIECES = ("<pad>", "a\tb", "c\nd", "\u2028", "\u202e", "\u00e9")

    def pieces(self, ids):
        return [self.PIECES[i] for i in ids]


def test_no_piece_breaks_a_line():
    table = projector._labels(Odd(), range(1, 6)).decode()
    rows = [line.split("\t") for line in table.splitlines()]
    assert [len(row) for row in rows] == [2] * 6
    assert [row[1] for row in rows] == ["id", "1", "2", "3", "4", "5"]
    assert rows[1][0] == r"a\tb"


def test_a_row_is_a_vector():
    rows = torch.tensor([[1.0, -0.123456, 3e-9], [1e9, 0.0, float("nan")]])
    lines = projector._vectors(rows).decode().splitlines()
    found = np.array([[float(x) for x in line.split("\t")] for line in lines])
    np.testing.assert_allclose(found, rows.numpy(), rtol=1e-3)


@pytest.mark.e2e
def test_a_large_vocabulary_is_cut(tmp_path_factory, monkeypatch):
    root = tiny_run(tmp_path_factory.getbasetemp())
    size = load(root).model.encoder.embedding.E.embedding_dim
    monkeypatch.setattr(projector, "MAX_NUMBERS", 10 * size + 5)
    tables = {name: draw() for name, draw in projector.project(config_of(root), RunDir(root))}
    assert len(tables) == 5
    for side in ("source", "target"):
        assert tables[f"tensorboard/projector/{side}.tsv"].count(b"\n") == 9  # no padding
        assert tables[f"tensorboard/projector/{side}_labels.tsv"].endswith(b"\t9\n")
