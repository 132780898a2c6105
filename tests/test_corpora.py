"""Several corpora, drawn in shares, and one model for several directions, told by tags."""

import json
import re
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import sacrebleu
from recorded import checksums, newest_checkpoint
from runs import (
    assert_fails,
    composed,
    config_of,
    copy_of,
    go,
    metrics_of,
    run_new,
    template_pairs,
    write_corpus,
)

import seq2seq
from seq2seq.config.compose import preset, to_config
from seq2seq.config.schema import TrainerConfig
from seq2seq.data.batching import plan_epoch
from seq2seq.data.mixture import mixture
from seq2seq.data.prepare import directions_of, load_pairs, load_tokenizers
from seq2seq.data.tags import tag_ids
from seq2seq.data.tokenizer import EOS
from seq2seq.data.toy import generate
from seq2seq.data.words import split_words
from seq2seq.decoding.augment import AugmentRules, augment
from seq2seq.decoding.forced import force_ids, ranking_of, without_tag
from seq2seq.decoding.search import Hypothesis
from seq2seq.evaluation.scoring import LOWER_CASED, TOKENISED
from seq2seq.fidelity import compare
from seq2seq.run.checksums import read_checksummed, with_checksum
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, RunDirError, UsageError

pytestmark = pytest.mark.e2e

# Shares ------------------------------------------------------------------------------------------

MIXTURES = {
    "alike": ([50, 7, 300], [1, 1, 1], 1e9),
    "root": ([50, 7, 300], [1, 1, 1], 2),
    "weights": ([50, 7, 300], [1, 10, 0.5], 1),
    "both": ([1, 400], [3, 1], 5),
    "sharper": ([60, 40], [1, 1], 0.5),
}


@pytest.mark.parametrize(("sizes", "weights", "temperature"), MIXTURES.values(), ids=MIXTURES)
@pytest.mark.parametrize("reshuffle", [True, False])
def test_corpora_are_drawn_in_their_shares_and_their_pairs_evenly(
    sizes, weights, temperature, reshuffle
):
    mixed, epochs = mixture(sizes, weights, temperature), 40
    drawn = [mixed.draw(seed=3, epoch=e, reshuffle=reshuffle) for e in range(epochs)]
    counts = np.bincount(np.concatenate(drawn), minlength=sum(sizes))
    assert all(abs(len(rows) - sum(sizes)) <= len(sizes) for rows in drawn)

    powers = [w * n ** (1 / temperature) for n, w in zip(sizes, weights, strict=True)]
    bounds = np.cumsum([0, *sizes])
    for (start, stop), power in zip(pairwise(bounds), powers, strict=True):
        expected = epochs * sum(sizes) * power / sum(powers)
        assert counts[start:stop].sum() == pytest.approx(expected, abs=1)
        assert np.ptp(counts[start:stop]) <= 1
    again = mixture(sizes, weights, temperature).draw(seed=3, epoch=7, reshuffle=reshuffle)
    assert (again == drawn[7]).all()
    assert not np.array_equal(again, mixed.draw(seed=4, epoch=7, reshuffle=reshuffle))


def test_each_turn_through_a_corpus_has_an_order_of_its_own_unless_shuffled_once():
    sizes = [20, 20]
    for reshuffle in (True, False):
        rows = mixture(sizes, [1, 3]).draw(seed=1, epoch=0, reshuffle=reshuffle)
        second = rows[10:]
        assert {*second} == {*range(20, 40)}
        one, two = second[:10], mixture(sizes, [1, 3]).draw(seed=1, epoch=2, reshuffle=reshuffle)
        assert np.array_equal(one, two[10:20]) == (not reshuffle)


def test_batches_hold_what_is_drawn():
    lengths, mixed = np.random.default_rng(1).integers(1, 30, 100), mixture([90, 10], [1, 9])
    cfg = TrainerConfig(batch_sentences=8, pool_batches=3, reshuffle=True)
    batches = plan_epoch(lengths, cfg, seed=2, epoch=5, mixture=mixed)
    assert sorted(chain(*batches)) == sorted(mixed.draw(seed=2, epoch=5, reshuffle=True))
    assert [*chain(*batches)] != sorted(chain(*batches))


# One direction -----------------------------------------------------------------------------------

SHORT = ["stages=[tokenize,train]", "trainer.max_updates=3", "trainer.validate_every=3"]
SHORT += ["tokenizer.vocab_size=100", "logging.tensorboard=false"]
HELD_OUT = "validation:[val.en,val.fr],test:[test.en,test.fr]"


@pytest.mark.e2e
def test_corpora_drawn_by_size_are_one_corpus_to_the_bit(tmp_path):
    names = write_corpus(tmp_path, template_pairs(90), held_out=10)
    for side in ("en", "fr"):
        lines = (tmp_path / f"train.{side}").read_text("utf-8").splitlines(keepends=True)
        (tmp_path / f"a.{side}").write_text("".join(lines[:25]), "utf-8")
        (tmp_path / f"b.{side}").write_text("".join(lines[25:]), "utf-8")
    several = f"data.corpora=[{{train:[a.en,a.fr],{HELD_OUT}}},{{train:[b.en,b.fr]}}]"
    one = run_new(tmp_path / "one", composed("debug", [*names, *SHORT]))
    two = run_new(tmp_path / "two", composed("debug", [*names, *SHORT, several]))
    assert checksums(newest_checkpoint(two.root)) == checksums(newest_checkpoint(one.root))

    report = read_checksummed(two.path("data_report.json"))["train"]
    assert [c["kept"] for c in report["corpora"]] == [25, 45]
    assert [c["share"] for c in report["corpora"]] == [25 / 70, 45 / 70]
    assert report["kept"] == report["read"] == 70
    assert config_of(two.root).data.tags == {}


# Two directions ----------------------------------------------------------------------------------

EMBEDDED = "train:embedded,validation:embedded,test:embedded"
BACK = "source_language:fr,target_language:en"
BACK += "".join(f",{split}:[{split}.fr,{split}.en]" for split in ("train", "validation", "test"))
LONGER = ["trainer.max_updates=100", "trainer.validate_every=50", "trainer.batch_tokens=400"]
LONGER += ["optimizer.lr=0.03", "evaluate.heatmaps=[1,21]", "trainer.ema_decay=0"]
LONGER += ["model.hidden_size=32", "model.embedding_size=24", "decoder.output_rank=null"]
LONGER += ["trainer.label_smoothing=0", "decoder.readout_dropout=0"]
LONGER += ["model.embedding_dropout=0", "encoder.annotation_dropout=0"]
WORDS = {"min_words": 3, "max_words": 8}
SIZES = ["data.grammar.train_pairs=100", "tokenizer.vocab_size=200", "tokenizer.joint=true"]


@pytest.fixture(scope="module", name="tagged")
def tagged_run(tmp_path_factory) -> Path:
    """A run from English to French, on the embedded corpus, and back, on other sentences of it."""
    folder = tmp_path_factory.mktemp("tagged")
    for split, count in (("train", 60), ("validation", 12), ("test", 15)):
        pairs = list(generate(split, count, seed=7, **WORDS))
        for side, language in (("src", "en"), ("tgt", "fr")):
            text = "".join(f"{getattr(pair, side)}\n" for pair in pairs)
            (folder / f"{split}.{language}").write_text(text, "utf-8")
    corpora = f"data.corpora=[{{{EMBEDDED}}},{{{BACK},weight:3}}]"
    changes = [f"data.root={folder}", corpora, "data.temperature=2", *SIZES, *LONGER]
    return run_new(folder / "run", composed("debug", changes)).root


@pytest.fixture(scope="module")
def model(tagged):
    return seq2seq.load(tagged)


def test_every_source_begins_with_its_tag_and_nothing_else_has_one(tagged):
    run, cfg = RunDir.open(tagged), config_of(tagged)
    tokenizers = load_tokenizers(run, cfg)
    ids = tag_ids(cfg.data.tags, tokenizers[0])
    assert cfg.data.tags == {"fr": "<2fr>", "en": "<2en>"}
    assert ids == tag_ids(cfg.data.tags, tokenizers[1])
    assert len({*ids.values()}) == 2
    kept = [len({*generate("train", n, seed=s, **WORDS)}) for n, s in ((100, 1), (60, 7))]
    for split, counts in (("train", kept), ("validation", (20, 12))):
        pairs, directions = load_pairs(run, split, tokenizers), directions_of(run, cfg, split)
        assert directions == [("en", "fr")] * counts[0] + [("fr", "en")] * counts[1]
        for i, (_, target) in enumerate(directions):
            assert pairs.src[i][0] == ids[target]
            assert not {*ids.values()} & {*pairs.src[i][1:], *pairs.tgt[i]}
    assert not any("<2" in path.read_text("utf-8") for path in run.path("corpus").iterdir())


def test_the_report_of_the_data_has_each_corpus(tagged):
    report = read_checksummed(tagged / "data_report.json")
    forth, back = report["train"]["corpora"]
    assert (forth["direction"], back["direction"]) == (["en", "fr"], ["fr", "en"])
    kept = forth["kept"], back["kept"]
    weights = kept[0] ** 0.5, 3 * kept[1] ** 0.5
    assert [forth["share"], back["share"]] == pytest.approx([w / sum(weights) for w in weights])
    assert report["test"]["blocks"] == [["en", "fr", 20], ["fr", "en", 15]]
    rows = {row.point: row.here for row in compare(config_of(tagged)).rows}
    assert rows["data.corpora"] == "en-fr (weight 1) + fr-en (weight 3)"
    assert (rows["data.target_language"], rows["data.train"]) == ("fr + en", "none")


@pytest.mark.e2e
def test_a_resumed_run_draws_as_one_that_was_not_interrupted(tagged, tmp_path):
    start = copy_of(tagged, tmp_path / "start")
    for name in ("checkpoints", "model"):
        (start / name).rename(tmp_path / name)
    (start / "metrics.jsonl").unlink()
    short = ("trainer.patience=null", "logging.tensorboard=false")
    whole, cut = (copy_of(start, tmp_path / name) for name in ("whole", "cut"))
    go(whole, "trainer.max_updates=14", *short)
    for updates in (3, 9, 14):  # an epoch has some five
        go(cut, f"trainer.max_updates={updates}", *short)
    assert newest_checkpoint(whole).name == "update-00000014"
    assert checksums(newest_checkpoint(whole)) == checksums(newest_checkpoint(cut))


def columns(tagged: Path, split: str = "test") -> list[list[str]]:
    texts = (tagged / f"corpus/{split}.{side}" for side in ("source", "target"))
    return [path.read_text("utf-8").splitlines() for path in texts]


def test_a_tag_decides_the_language(tagged, model):
    """Little is learnt, but of an English source its French is likelier with the tag of French."""
    pairs = [*zip(*columns(tagged), strict=True)][:20]
    fr, en = (
        sum(t.candidates[0].log_prob for t in model.force(pairs, target_language=language))
        for language in ("fr", "en")
    )
    assert fr > en + 40


def test_a_tag_goes_before_the_source_and_its_attention_to_the_end_symbol(tagged, model):
    sources, targets = ([*column[:3], *column[-3:]] for column in columns(tagged))
    languages, cfg = ["fr"] * 3 + ["en"] * 3, model.config
    found = [*model.force(zip(sources, targets, strict=True), target_language=languages)]
    ids = tag_ids(cfg.data.tags, model.tokenizers[0])
    for t, language in zip(found, languages, strict=True):
        both = zip(model.tokenizers, (t.source, t.text), strict=True)
        [src], [tgt] = (tokenizer.tokens([text]) for tokenizer, text in both)
        whole = ([ids[language], *(x.id for x in src), EOS], [*(x.id for x in tgt), EOS])
        [raw] = force_ids(model.model, [whole], ranking_of(cfg.decode))
        assert t.candidates[0].log_prob == pytest.approx(raw.log_prob, rel=1e-5)
        assert t.source_tokens == (*(x.piece for x in src), "</s>")
        np.testing.assert_allclose(t.alignment[:, :-1], raw.alpha[:, 1:-1], atol=1e-5)
        np.testing.assert_allclose(t.alignment.sum(axis=1), 1, atol=1e-5)


def test_layers_and_heads_leave_the_tag_out_alike():
    rng = np.random.default_rng(1)
    shapes = {"heads": (2, 3, 4, 6), "encoder": (2, 3, 6, 6), "decoder": (2, 3, 4, 4)}
    maps = {name: rng.dirichlet(np.ones(shape[-1]), shape[:-1]) for name, shape in shapes.items()}
    h = Hypothesis((1, 2, 3, EOS), 0.0, 0.0, (0.0,) * 4, maps["heads"][0, 0], True, maps)
    assert without_tag(h, 0) is h
    found = without_tag(h, 1)
    assert [found.maps[name].shape[-2:] for name in shapes] == [(4, 5), (5, 5), (4, 4)]
    assert (found.maps["encoder"][..., :-1] == maps["encoder"][..., 1:, 1:-1]).all()
    for weights in (found.alpha, *found.maps.values()):
        np.testing.assert_allclose(weights.sum(axis=-1), 1)


def test_lines_of_any_language_share_batches_and_blank_ones_stay_blank(tagged, model):
    sources, _ = columns(tagged)
    lines, languages = ["", *sources[:4], " ", *sources[-4:]], ["fr"] * 5 + ["en"] * 5
    together = model.translate(lines, languages)
    alone = [model.translate([x], y)[0] for x, y in zip(lines, languages, strict=True)]
    assert [t.text for t in together] == [t.text for t in alone]
    assert [i for i, t in enumerate(together) if not t.text] == [0, 5]
    assert [t.text for t in model.translate(sources[:4], "en")] != [t.text for t in together[1:5]]


def test_no_translation_has_a_tag(tagged):
    """Of 4,000 draws from all words alike."""
    cold = ["decode.sample=true", "decode.n_best=40", "decode.temperature=100"]
    model = seq2seq.load(tagged, [*cold, "decode.min_ratio=0", "decode.max_ratio=2"])
    found = model.translate(columns(tagged)[0][:8], "fr")
    tokens = [token for t in found for c in t.candidates for token in c.tokens]
    assert len(tokens) > 4000
    assert not any("<2" in token for token in tokens)
    assert len({*tokens}) > 150


def test_a_run_of_several_languages_has_to_be_told_which(tagged, run, script, model):
    line = b"the cat sleeps .\n\n"
    choice = "Give fr or en: --target-language, in Python target_language."
    assert_fails(script("decode", tagged, stdin=line), 2, "is not given", choice)
    wrong = script("decode", tagged, "--target-language", "de", stdin=line)
    assert_fails(wrong, 2, "'de' is not one of this run", choice)
    assert_fails(script("decode", run, "--target-language", "de", stdin=line), 2, "Give fr: ")
    one, same = (script("decode", run, *x, stdin=line) for x in ([], ["--target-language", "fr"]))
    assert one.out == same.out
    both = [script("decode", tagged, "--target-language", x, stdin=line) for x in ("fr", "en")]
    assert [result.out.count(b"\n") for result in both] == [2, 2]
    assert both[0].out.decode() == f"{model.translate(['the cat sleeps .'], 'fr')[0].text}\n\n"
    with pytest.raises(UsageError, match="is not given"):
        model.translate(["the cat sleeps ."])


def test_there_are_as_many_languages_as_sentences_or_one(model):
    with pytest.raises(UsageError, match="2 for 3 sentences"):
        model.translate(["a", "b", "c"], ["fr", "en"])


@pytest.mark.parametrize("languages", [["fr", "en"], []])
@pytest.mark.parametrize("processes", [None, 1, "force"])
def test_a_stream_with_fewer_languages_than_lines_is_refused(model, languages, processes):
    message = f"target language: {len(languages)} for {len(languages) + 1} or more lines"
    if processes == "force":
        found = model.force([("a cat", "un chat")] * 3, target_language=languages)
    else:
        found = model.stream(["a cat"] * 3, target_language=languages, processes=processes)
    with pytest.raises(UsageError, match=message):
        list(found)
    assert [*model.stream([], target_language=languages)] == []


def test_text_is_made_in_the_language_that_is_named(tagged, model, tmp_path):
    source, _ = columns(tagged)
    text = tmp_path / "mono.txt"
    text.write_text("".join(f"{line}\n" for line in source[:5]), "utf-8")
    with pytest.raises(UsageError, match="this run has several"):
        augment(model, text, tmp_path / "none", AugmentRules())
    for language in ("fr", "en"):
        output = tmp_path / language
        augment(model, text, output, AugmentRules(target_language=language))
        made = (output / "pairs.source").read_text("utf-8").splitlines()
        wanted = [t.text for t in model.translate(source[:5], language)]
        assert made == [text for text in wanted if text in made]
        assert made, "the model says nothing"


def test_links_count_the_words_of_the_line(tagged, script):
    sources, _ = columns(tagged)
    text = "".join(f"{line}\n" for line in sources[:20]).encode()
    options = ("--target-language", "fr", "--format", "pharaoh", "--level", "words")
    rows = script("decode", tagged, *options, stdin=text).out.decode().splitlines()
    links = [[int(link.partition("-")[0]) for link in row.split()] for row in rows]
    counts = [len(split_words(line)) for line in sources[:20]]
    assert all(max(own, default=0) < n for own, n in zip(links, counts, strict=True))
    assert any(own for own in links)


# Scores ------------------------------------------------------------------------------------------


def blocks(tagged: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Translations and references of each direction of the test set."""
    found = (tagged / "decode/test.txt").read_text("utf-8").splitlines()
    _, references = columns(tagged)
    return {"en-fr": (found[:20], references[:20]), "fr-en": (found[20:], references[20:])}


def test_each_direction_has_scores_of_its_own(tagged, script):
    scores = json.loads((tagged / "scores.json").read_bytes())["scores"]
    for name, (found, references) in blocks(tagged).items():
        own = {key.partition(" ")[2] for key in scores if key.startswith(name)}
        assert own == {"BLEU", TOKENISED, LOWER_CASED, "chrF", "chrF++", "TER"}
        bleu = sacrebleu.corpus_bleu(found, [references]).score
        assert scores[f"{name} BLEU"]["value"] == pytest.approx(bleu)
        assert f"moses-{name[-2:]}" in scores[f"{name} BLEU, tokenised"]["signature"]
        chrf = script("evaluate", tagged, "--target-language", name[-2:]).out.decode()
        value = sacrebleu.corpus_chrf(found, [references]).score
        assert re.search(rf"^chrF +{value:.2f} ", chrf, re.M)
    assert len(scores) == 12
    assert (tagged / "length_bleu.png").exists()
    assert not (tagged / "length_bleu.json").exists()
    both = script("evaluate", tagged, tagged)
    assert_fails(both, 2, "target language: is not given")


def test_validation_logs_every_direction_and_selects_by_their_mean(tagged):
    last = [row for row in metrics_of(tagged) if "validation/bleu" in row][-1]
    for metric in ("bleu", "chrf"):
        both = [last[f"{metric}/{name}"] for name in ("en-fr", "fr-en")]
        assert last[f"validation/{metric}"] == pytest.approx(sum(both) / 2)
        assert both[0] != both[1]


def test_a_model_to_hand_on_knows_its_directions_and_no_file(tagged, model):
    config = config_of(tagged / "model")
    assert [(c.train, c.validation, c.test) for c in config.data.corpora] == [([], [], [])] * 2
    exported = seq2seq.load(tagged / "model").translate(["the cat sleeps ."], "fr")
    assert exported[0].text == model.translate(["the cat sleeps ."], "fr")[0].text


def test_an_ensemble_has_the_same_directions(tagged, tmp_path):
    other = copy_of(tagged / "model", tmp_path / "other")
    text = (other / "config.yaml").read_text("utf-8")
    (other / "config.yaml").write_text(text.replace("target_language: en", "target_language: de"))
    with pytest.raises(RunDirError, match="its target languages are not those of"):
        seq2seq.load([tagged, other])


def test_a_report_of_the_data_that_was_changed_is_refused(tagged, tmp_path):
    run = RunDir(copy_of(tagged, tmp_path / "run"))
    report = read_checksummed(run.path("data_report.json"))
    report["test"]["blocks"][0][2] += 1
    run.write_json("data_report.json", with_checksum(report))
    with pytest.raises(RunDirError, match="unexpected content"):
        directions_of(run, config_of(run.root), "test")


# Errors ------------------------------------------------------------------------------------------

TWO = [{"train": ["a.en", "a.fr"]}, {"train": ["a.en", "a.de"], "target_language": "de"}]
PIECES = {"name": "sentencepiece"}
ERRORS = {
    "a weight": ([{"weight": 0}], {}, "data.corpora.0.weight=0 is out of range"),
    "one corpus": ([], {"temperature": 5}, "data.temperature=5 is for several corpora"),
    "a language": ([{"target_language": "False"}], {}, "data.corpora.0.target_language='False'"),
    "itself": ([{}, {"target_language": "en"}], {}, "data.corpora.1 translates en-en"),
    "a key": ([{"wieght": 2}], {}, "unknown key 'wieght'. Did you mean 'weight'?"),
    "no list": ("a.tsv", {}, "data.corpora"),
}


@pytest.mark.parametrize(("corpora", "more", "message"), ERRORS.values(), ids=ERRORS)
def test_what_is_wrong_with_corpora_is_said_at_once(corpora, more, message):
    with pytest.raises(ConfigError) as error:
        to_config({"data": {"corpora": corpora, **more}, "tokenizer": PIECES})
    assert message in str(error.value)


def test_words_have_the_rules_of_one_language():
    with pytest.raises(ConfigError, match="tokenizer=words has one language per side"):
        to_config({"data": {"corpora": TWO}})
    same = [{"train": "a.tsv"}, {"train": "b.tsv"}]
    cfg = to_config({"data": {"corpora": same, "train": ["c.tsv"]}})
    assert [part.train for part in cfg.data.parts] == [["a.tsv"], ["b.tsv"]]
    assert cfg.data.train == []


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train", "data.corpora.1 has no train"),
        ("validation", "no en-de corpus has a validation"),
        ("test", "no en-de corpus has a test"),
    ],
)
def test_every_corpus_has_training_text_and_every_direction_the_rest(tmp_path, split, message):
    for name in ("a.en", "a.fr", "a.de"):
        (tmp_path / name).write_text("one line\n")
    splits = {"train", "validation", "test"}
    corpora = [{x: ["a.en", f"a.{target}"] for x in splits} for target in ("fr", "de")]
    corpora[1] |= {"target_language": "de", split: []}
    cfg = to_config(
        {
            "data": {"root": str(tmp_path), "corpora": corpora},
            "tokenizer": PIECES,
            "stages": ["tokenize"],
        }
    )
    with pytest.raises(ConfigError, match=message):
        run_new(tmp_path / "run", cfg)


def test_the_preset_of_captions_has_three_directions():
    cfg = preset("multi30k_tagged", ["+data.corpora.1.weight=2"])
    assert ["-".join(d) for d in cfg.data.directions] == ["en-de", "en-fr", "en-cs"]
    assert [corpus.weight for corpus in cfg.data.corpora] == [1, 2, 1]
    assert cfg.model == preset("multi30k_en_fr").model
