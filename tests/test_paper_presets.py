"""The presets of Table 1: parameters counted, updates, lengths and words as printed."""

import pytest
import torch
from runs import ROOT, composed

from seq2seq.config.schema import Config, WordsConfig
from seq2seq.data.tokenizer import PAD
from seq2seq.model import EncoderDecoder, build_model

# Table 2's updates; the number of parameters is that of the authors' program, run.
TABLE = {
    "rnnencdec30": ("fixed", 30, 846_000, 72_487_101),
    "rnnsearch30": ("additive", 30, 471_000, 84_349_101),
    "rnnencdec50": ("fixed", 50, 600_000, 72_487_101),
    "rnnsearch50": ("additive", 50, 288_000, 84_349_101),
    "rnnsearch50_star": ("additive", 50, 667_000, 84_349_101),
}


def num_parameters(cfg: Config, monkeypatch) -> int:
    """Build the model without memory: nothing is drawn, K is what `vocab_size` says."""
    monkeypatch.setattr(EncoderDecoder, "initialize", lambda model, scheme: None)
    size = cfg.tokenizer.vocab_size
    with torch.device("meta"):
        model = build_model(cfg, num_source=size, num_target=size, pad=PAD)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", TABLE)
def test_preset_is_a_row_of_the_tables(name, monkeypatch):
    attention, words, updates, parameters = TABLE[name]
    cfg = composed(name)
    assert cfg.attention.name == attention
    assert (cfg.data.max_words, cfg.trainer.max_updates) == (words, updates)
    assert isinstance(cfg.tokenizer, WordsConfig)
    assert cfg.tokenizer.vocab_size == 30_001
    assert num_parameters(cfg, monkeypatch) == parameters


SMALL = {
    "quickstart": 1_836_112,
    "figure2": 3_180_112,
    "alignment": 1_836_112,
    "multi30k_en_fr": 4_450_632,
    "debug": 25_112,
    "cgru": 3_945_992,
    "luong": 6_495_496,
    "gnmt_small": 7_573_640,
    "bideep": 7_307_784,
    "transformer_tiny": 2_615_056,
    "transformer_base": 63_119_496,
    "self_attention_encoder": 6_265_160,
}
"""Counted by hand from the sizes, K being `vocab_size` on both sides."""


@pytest.mark.e2e
@pytest.mark.parametrize("name", SMALL)
def test_small_presets_have_as_many_parameters_as_counted_by_hand(name, monkeypatch):
    assert num_parameters(composed(name), monkeypatch) == SMALL[name]


def test_the_readme_says_so():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    for name, count in (SMALL | {name: row[-1] for name, row in TABLE.items()}).items():
        [line] = [x for x in lines if x.startswith("| ") and f"`{name}`" in x.split("|")[1]]
        assert line.endswith(f"| {count:,} |")


@pytest.mark.parametrize(
    ("name", "expected"), [("rnnsearch50", 80_401_000), ("rnnencdec50", 68_540_000)]
)
def test_the_printed_equations_have_as_many_parameters_as_counted_by_hand(
    name, expected, monkeypatch
):
    printed = ["model.bias=false", "model.embedding_bias=false", "decoder.output_rank=null"]
    cfg = composed(name, [*printed, "tokenizer.vocab_size=30000"])
    assert num_parameters(cfg, monkeypatch) == expected
