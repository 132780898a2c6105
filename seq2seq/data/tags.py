"""Tags before the source that select the target language of a multilingual model.

Johnson et al. 2017 (arXiv:1611.04558). A tag is one id that occurs in no text: lines stay
unchanged, and so do the positions of their words. Translations must not contain tags.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from seq2seq.config.schema import DataConfig, Direction
from seq2seq.data.tokenizer import Tokenizer, symbol_ids
from seq2seq.run.errors import UsageError

Languages = str | Sequence[str] | None
"""The target language of all lines, or one per line; None if the model has only one."""

Ids = tuple[int, ...]


def no_tag(_number: int) -> Ids:
    """Return no ids: there is one target language."""
    return ()


@dataclass(frozen=True)
class Tagging:
    """The tags of the lines to translate."""

    of_line: Callable[[int], Ids] = no_tag  # by line number, from 1
    forbidden: Ids = ()  # ids of tags in the target vocabulary


UNTAGGED = Tagging()


def tag_ids(tags: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of tags by target language.

    Raises:
        ConfigError: the vocabulary was learnt without one of them.
    """
    return dict(zip(tags, symbol_ids(tokenizer, tags.values()), strict=True))


def rows_of(directions: Sequence[Direction]) -> dict[Direction, list[int]]:
    """Group row numbers by direction."""
    rows: dict[Direction, list[int]] = {}
    for row, direction in enumerate(directions):
        rows.setdefault(direction, []).append(row)
    return rows


def direction_to(data: DataConfig, language: str | None) -> Direction:
    """Return the first direction with a target language; None means the only one.

    Raises:
        UsageError: a language is needed and none is given, or the model does not have it.
    """
    known = [*dict.fromkeys(target for _, target in data.directions)]
    choice = f"Give {' or '.join(known)}: --target-language, in Python target_language."
    if language is None and len(known) > 1:
        raise UsageError("target language", "is not given, and this run has several", choice)
    if language not in (None, *known):
        raise UsageError("target language", f"{language!r} is not one of this run", choice)
    return next(found for found in data.directions if language in (None, found[1]))


def tagging(
    data: DataConfig, tokenizers: tuple[Tokenizer, Tokenizer], languages: Languages
) -> Tagging:
    """Return the tagging for lines with these target languages.

    Raises:
        UsageError: a language is needed and none is given, or the model does not have it; later,
            there are fewer than lines.
    """
    if languages is None:
        direction_to(data, None)
        return UNTAGGED
    of_each = [languages] if isinstance(languages, str) else languages
    for language in dict.fromkeys(of_each):
        direction_to(data, language)
    if not data.tags:
        return UNTAGGED
    before, forbidden = (tag_ids(data.tags, tokenizer) for tokenizer in tokenizers)

    def of_line(number: int) -> Ids:
        if len(of_each) == 1:
            return (before[of_each[0]],)
        if number > len(of_each):
            what = f"{len(of_each)} for {number} or more lines"
            raise UsageError("target language", what, "Give one for all, or one for each.")
        return (before[of_each[number - 1]],)

    return Tagging(of_line, tuple(forbidden.values()))
