"""What a newcomer needs in the first hour: rows N5, N7 and N8 of the user reports.

N4 is in `test_stages.py`.
"""

import re

import pytest
from runs import ROOT, composed

from seq2seq.data.fetch import corpora
from seq2seq.run.checksums import read_checksummed


@pytest.mark.parametrize("preset", ["own_corpus", "low_resource"])
def test_a_corpus_of_ones_own_takes_no_settings_but_its_languages(preset):
    data = composed(preset, ["data.source_language=gd", "data.target_language=en"]).data
    names = [[f"{split}.gd", f"{split}.en"] for split in ("train", "dev", "test")]
    assert [data.train, data.validation, data.test] == names
    assert composed(preset).tokenizer.vocab_size is None, "follows the size of the text"


def test_the_page_of_data_says_where_corpora_are_to_be_had():
    page = (ROOT / "docs/data.md").read_text("utf-8")
    assert all(f"`{name}`" in page or f"fetch {name}`" in page for name in corpora())
    assert all(f"| {name}" in page for name in ("Multi30k", "IWSLT14", "WMT14"))


@pytest.mark.e2e
def test_a_run_knows_its_commit_and_scores_know_nothing_of_training(run, script, tmp_path):
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", read_checksummed(run / "run.json")["commit"])
    same = run / "corpus/test.target"
    result = script("evaluate", "--hypotheses", same, "--reference", same)
    assert (result.code, result.err) == (0, "")
    missing = tmp_path / "missing"
    result = script("evaluate", "--hypotheses", missing, "--reference", same)
    assert (result.code, "data.root" in result.err) == (3, False)
