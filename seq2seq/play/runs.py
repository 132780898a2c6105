"""A run on the page: what the page says of it, and what answers its questions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from seq2seq.data.prepare import splitter_of
from seq2seq.data.tags import direction_to
from seq2seq.decoding.pretrained import load
from seq2seq.play.answers import Answers, Question, can_change, can_force
from seq2seq.play.engine import Engine, Work
from seq2seq.play.neighbours import Neighbours
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import printable
from seq2seq.run.models import named_runs


@dataclass(frozen=True)
class Player:
    """A run on the page."""

    about: Mapping[str, Any]  # JSON-compatible
    engine: Engine[Question]
    neighbours: Neighbours | None

    def close(self) -> None:
        """End its threads."""
        self.engine.close()
        if self.neighbours is not None:
            self.neighbours.close()


def player(text: str, overrides: Sequence[str] = (), language: str | None = None) -> Player:
    """Load a run by its name; `language` is that of questions that name none, if it has several."""
    named, model = named_runs(text), load(text, overrides)
    data, cfg = model.config.data, model.config.decode
    if language is not None:
        direction_to(data, language)
    # The members of an ensemble have states of their own, and no common one.
    forced, [first, *others] = can_force(model), named
    neighbours = Neighbours(RunDir.open(first.path), model) if forced and not others else None
    answers = Answers(model, language, neighbours)
    languages = [*dict.fromkeys(target for _, target in data.directions)]
    about = {
        "name": printable(" + ".join(each.path.resolve().name for each in named)),
        "shown": model.shown,
        "layers": answers.maps,
        "canForce": forced,
        "canChange": forced and can_change(model.model),
        "hasText": neighbours is not None,
        "hasWords": splitter_of(model.config) is not None,
        "languages": languages if len(languages) > 1 else [],
        "language": language,
        "source": data.source_language,
        "search": "sampled" if cfg.sample else f"beam {cfg.beam_size}",
    }
    kinds: dict[str, Work[Question]] = {
        "quick": partial(answers.translations, quick=True),
        "full": answers.translations,
        "alternatives": answers.alternatives,
        "intervene": answers.alternatives,
        "nearest": answers.nearest,
    }
    # The draws of a sample depend on its place in a batch.
    most = 1 if cfg.sample else cfg.batch_sentences
    return Player(about, Engine(kinds, most), neighbours)
