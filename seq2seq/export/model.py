"""A trained model as a directory to publish: what `seq2seq.load` needs, and a model card.

The card (`README.md`) has the header that the Hugging Face Hub reads, and a hub repository with
these files is loaded by `hf:NAME`.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from seq2seq.cli.console import table
from seq2seq.config.compose import load_run_config
from seq2seq.config.schema import Config
from seq2seq.data.prepare import REPORT, TOKENIZERS
from seq2seq.decoding.flags import SAVED, saved_flags
from seq2seq.decoding.pretrained import Pretrained
from seq2seq.decoding.shortlist import copy_shortlist
from seq2seq.evaluation.test_set import SCORES, Results, other_settings, read_results
from seq2seq.run.checkpoints import directory_of
from seq2seq.run.checksums import read_checksummed, read_directory
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import printable
from seq2seq.run.jsonable import to_json
from seq2seq.run.models import NamedRun
from seq2seq.run.naming import CONFIG
from seq2seq.run.reading import expected
from seq2seq.training.checkpoint import pack
from seq2seq.training.export import fill, public_config

CARD = "README.md"


def save(named: NamedRun, out: RunDir, license_name: str | None) -> None:
    """Write the model that a name selects into an empty directory, with its card.

    The license is named as the Hub abbreviates it, such as `apache-2.0`.

    Raises:
        RunDirError: the run is damaged.
    """
    run = RunDir.open(named.path)
    cfg = load_run_config(run.checked(CONFIG))
    model = Pretrained(run, replace(cfg, device="cpu"), named.selector)
    weights = dict(model.model.named_parameters())
    name = directory_of(out, model.update).relative_to(out.root).as_posix()
    tokenizers = read_directory(run.path(TOKENIZERS))
    fill(out, public_config(cfg), tokenizers, name, pack(weights))
    if (flags := saved_flags(run)) is not None:  # the limits, without the lines of the test set
        out.write_json(SAVED, to_json(replace(flags, lines={}, decode=None)))
    copy_shortlist(run, out)

    # The card. The saved scores are those of the best weights.
    size = sum(weight.numel() for weight in weights.values())
    scored = named.selector is None and run.path(SCORES).exists()
    results = read_results(run.checked(SCORES)) if scored else None
    others = other_settings(results.flags, cfg.decode) if results else []
    listed = None if others else results  # the header has no place to name settings
    lines = [*_header(cfg, listed, license_name), *_about(cfg, model, size)]
    lines += [*_data(run), *_scores(results, others), *_limits(cfg, results, license_name)]
    out.write(CARD, "\n".join(map(printable, lines)) + "\n")


def _header(cfg: Config, results: Results | None, license_name: str | None) -> Iterator[str]:
    """Yield what the Hub reads."""
    languages = [language for direction in cfg.data.directions for language in direction]
    known = [language for language in languages if re.fullmatch("[a-z]{2,3}", language)]
    header: dict[str, Any] = {"language": [*dict.fromkeys(known)], "pipeline_tag": "translation"}
    header |= {"library_name": "seq2seq"} | ({"license": license_name} if license_name else {})
    if results is not None:
        metrics = [
            {"type": name.lower(), "value": round(score.value, 2)}
            for name, score in results.scores.items()
            if name in ("BLEU", "chrF", "TER")
        ]
        tested = {"name": f"test set of {cfg.name}", "type": cfg.name}
        result = {"task": {"type": "translation"}, "dataset": tested, "metrics": metrics}
        header["model-index"] = [{"name": cfg.name, "results": [result]}]
    yield from ("---", *yaml.safe_dump(header, sort_keys=False).splitlines(), "---", "")


def _about(cfg: Config, model: Pretrained, size: int) -> Iterator[str]:
    directions = ", ".join(f"{source} to {target}" for source, target in cfg.data.directions)
    parts = f"{cfg.encoder.name} encoder, {cfg.decoder.name} decoder"
    parts += f", {cfg.attention.name} attention, {size:,} parameters"
    yield from (f"# {cfg.name}", "")
    yield from (f"Translates {directions}: {parts}, after {model.update:,} updates.", "")
    yield from ("    import seq2seq", "")
    yield '    model = seq2seq.load("hf:NAME")  # or a directory'
    yield from ('    print(model.translate("...").text)', "")


def _data(run: RunDir) -> Iterator[str]:
    """Yield the corpora, if this is a run; their directories are private."""
    path = run.path(REPORT)
    if not path.exists():
        return
    report = read_checksummed(path)
    with expected(path):
        rows = [
            [split, _public(each["name"]), f"{each['lines']:,}"]
            for split in ("train", "validation", "test")
            for each in report[split]["inputs"]
        ]
        kept = sum(count for *_, count in report["train"]["blocks"])
    yield from ("## Data", "")
    yield from table(rows, ["split", "input", "lines"], style="pipe").splitlines()
    yield from ("", f"{kept:,} training pairs are left after the filters.", "")


def _public(name: str) -> str:
    return Path(name).name if Path(name).is_absolute() else name


def _scores(results: Results | None, others: Sequence[str]) -> Iterator[str]:
    yield from ("## Scores", "")
    if results is None:
        yield from ("These weights have not been evaluated.", "")
        return
    rows = [
        [name, f"{score.value:.2f}", score.interval or "", score.signature.replace("|", r"\|")]
        for name, score in results.scores.items()
    ]
    headers = ["metric", "value", "95% interval", "signature"]
    yield from table(rows, headers, style="pipe").splitlines()
    searched = f", translated with `{' '.join(others)}`" if others else ""
    yield from ("", f"On the {results.sentences:,} sentences of the test set{searched}.", "")


def _limits(cfg: Config, results: Results | None, license_name: str | None) -> Iterator[str]:
    yield from ("## Limits", "")
    longest, most = cfg.data.max_words, cfg.decode.max_source_tokens
    yield "- It translates sentence by sentence, without context."
    yield f"- It was trained on sentences of up to {longest} words; longer ones come out worse."
    yield f"- Of a source, only the first {most} tokens are read."
    yield "- It can leave out, repeat or invent content, most of all in text unlike its corpus."
    if results is not None and results.note:
        yield f"- {results.note}."
    if license_name is None:
        yield "- No license was given."
