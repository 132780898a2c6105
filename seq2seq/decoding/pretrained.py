"""A trained run as one object: raw text in, translations out."""

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from seq2seq.config.compose import load_run_config
from seq2seq.config.schema import Config, DecodeConfig, Mean
from seq2seq.data.prepare import TOKENIZERS, load_tokenizers, splitter_of
from seq2seq.data.tags import Languages, Tagging, tagging
from seq2seq.data.tokenizer import PAD, Tokenizer
from seq2seq.decoding.chunks import Feed, always
from seq2seq.decoding.flags import FIXED, Measures, flagged, measures, saved_flags
from seq2seq.decoding.forced import TextPair, force
from seq2seq.decoding.processes import in_processes
from seq2seq.decoding.request import Request
from seq2seq.decoding.shortlist import shortlist_of
from seq2seq.decoding.translate import translate
from seq2seq.decoding.translation import Translation
from seq2seq.model import EncoderDecoder, build_model
from seq2seq.model.ensemble import Decodable, Ensemble, Mixture
from seq2seq.run.checksums import MANIFEST, entries_of
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, PlatformError, RunDirError, UsageError
from seq2seq.run.models import named_runs
from seq2seq.run.naming import command
from seq2seq.training.checkpoint import load_weights

log = logging.getLogger(__name__)

T = TypeVar("T")

_NO_CUDA = "no CUDA device was found"
_OTHER_DEVICE = "Use device=cpu or device=auto."

# A fork lacks the other threads, and would wait for them forever in its first parallel loop.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=partial(torch.set_num_threads, 1))


class Pretrained:
    """A run's model, by default its best one, with its vocabularies and settings.

    The selector of its weights is that of `training.checkpoint.selected`; None selects the best.

    Attributes:
        config: The run's own config with overrides applied.
        update: The update that the weights come from.
    """

    def __init__(self, run: RunDir, config: Config, selector: str | None = None) -> None:
        self.config = config
        self.tokenizers = load_tokenizers(run, config)
        model = outline(config, self.tokenizers)
        self.update = load_weights(run, model, selector)
        device, shortlist = pick_device(config.device), shortlist_of(run, config, self.tokenizers)
        self.model: Decodable = model.to(device).eval()
        self.model.shortlist = shortlist.to(device) if shortlist else None
        self._root = run.root

    def join(self, others: Sequence["Pretrained"]) -> None:
        """Form an ensemble with other runs, in place."""
        cfg, members = self.config.decode, [self.model, *(other.model for other in others)]
        weights = cfg.weights or [1.0] * len(members)
        mixture = Mixture([w / sum(weights) for w in weights], cfg.ensemble is Mean.log_probs)
        shortlist, self.model = self.model.shortlist, Ensemble(members, mixture).eval()
        self.model.shortlist = shortlist

    @cached_property
    def limits(self) -> Measures:
        """Limits beyond which a translation is flagged, by flag."""
        saved = saved_flags(RunDir(self._root))
        return saved.limits if saved else FIXED

    @property
    def shown(self) -> tuple[int | None, int | None]:
        """Layer and head (from 1) of the attention shown; None: the last layer, the heads' mean."""
        layer, head = (getattr(self.config.attention, name, None) for name in ("layer", "head"))
        return layer, head

    @overload
    def translate(  # type: ignore[overload-overlap] # a str is a sequence of str
        self, sentences: str | Request, target_language: str | None = None
    ) -> Translation: ...

    @overload
    def translate(
        self, sentences: Sequence[str | Request], target_language: Languages = None
    ) -> list[Translation]: ...

    def translate(
        self, sentences: str | Request | Sequence[str | Request], target_language: Languages = None
    ) -> Translation | list[Translation]:
        """Translate sentences: text, score and alignment of each, in order.

        model = seq2seq.load("outputs/quickstart/...")
        t = model.translate("The small cat sleeps.")
        t.text, t.score, t.alignment
        [t] = model.translate([seq2seq.Request("The small cat sleeps.", prefix="La petite")])

        Given one sentence or request, returns one translation; given a list, a list. The target
        language is that of `stream`.

        Raises:
            UsageError: As for `stream`, or the numbers of languages and sentences differ.
        """
        if isinstance(sentences, str | Request):
            [translation] = self.translate([sentences], target_language)
            return translation
        if not isinstance(target_language, str | None) and len(target_language) != len(sentences):
            what = f"{len(target_language)} for {len(sentences)} sentences"
            raise UsageError("target language", what, "Give one for all, or one for each.")
        return list(self.stream(sentences, target_language=target_language))

    def stream(
        self,
        lines: Iterable[str | Request],
        ready: Callable[[], bool] = always,
        *,
        maps: bool = False,
        target_language: Languages = None,
        processes: int | None = None,
        rules: DecodeConfig | None = None,
    ) -> Iterator[Translation]:
        """Translate lines as they come, in order.

        Args:
            lines: Any number of lines, without line ends, or of requests.
            ready: Whether the next line is available; if not, the lines read so far are translated
                instead of waiting.
            maps: Whether candidates get the attention of every layer and head in `maps`, if the
                model has layers or heads.
            target_language: One for all lines or a list with one per line, for a model of several.
            processes: Translate in this many new processes, on a CPU.
            rules: Settings of the search in place of those of `config`.

        Raises:
            PlatformError: a process was killed.
            UsageError: a line is neither text nor a request; the model has several target languages
                and none is given, or lacks this one, or a list has fewer of them than lines.
        """
        model, tokenizers, cfg = self.model, self.tokenizers, rules or self.config.decode
        lines = _checked("lines", lines, lambda x: isinstance(x, str | Request), _LINES)
        feed = Feed(self.tagging(target_language), ready=ready)
        if processes is not None:
            parts = model, tokenizers, replace(self.config, decode=cfg)
            return in_processes(parts, lines, ready, processes, maps, target_language)
        return translate(model, tokenizers, lines, cfg, feed, maps=maps)

    def force(
        self, pairs: Iterable[TextPair], *, maps: bool = False, target_language: Languages = None
    ) -> Iterator[Translation]:
        """Score given translations in order: probability and attention of each token.

        [t] = model.force([("The small cat sleeps.", "Le petit chat dort.")])
        t.candidates[0].token_log_probs, t.candidates[0].perplexity, t.alignment

        `maps` and the target language are those of `stream`.

        Raises:
            UsageError: As for `stream`, or a pair is not two strings.
        """
        tags, cfg = self.tagging(target_language), self.config.decode
        if isinstance(pairs, tuple) and _is_pair(pairs):
            raise UsageError("pairs", "are a single pair", _PAIRS)
        pairs = _checked("pairs", pairs, _is_pair, _PAIRS)
        return force(self.model, self.tokenizers, pairs, cfg, maps=maps, tags=tags)

    def tagging(self, target_language: Languages) -> Tagging:
        """Return the tags of lines, given one language for all or a list with one per line."""
        return tagging(self.config.data, self.tokenizers, target_language)

    def flags(self, translation: Translation, number: int = 0) -> list[str]:
        """Return the flags of a candidate, which may be of `translate`, `stream` or `force`.

        [t] = model.force([("The small cat sleeps.", "Le chat chat chat chat dort.")])
        model.flags(t)  # ["improbable", "repeated"]

        `decoding/flags.py` has their meanings. An empty line has none.
        """
        if not translation.candidates:
            return []
        return flagged(self.measures(translation, number), self.limits)

    def measures(self, translation: Translation, number: int = 0) -> Measures:
        """Return the measures of a candidate that flags are about."""
        pieces, split = translation.soft_alignment(number), splitter_of(self.config)
        unknown = translation.unknown or translation.candidates[number].unknown
        return measures(pieces, split, unknown=unknown)


_LINES = "Give a list of strings or of `Request`s; `translate` also takes a single one."
_PAIRS = "Give a list: [(source, target), ...]."


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and [isinstance(x, str) for x in value] == [True, True]


def _checked(
    name: str, values: Iterable[T], is_valid: Callable[[object], bool], fix: str
) -> Iterator[T]:
    """Return the values one by one.

    Raises:
        UsageError: they are text, bytes or nothing to go through; later, one of them is invalid.
    """
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise UsageError(name, f"are a single {type(values).__name__}", fix)

    def each() -> Iterator[T]:
        for number, value in enumerate(values, 1):
            if not is_valid(value):
                raise UsageError(f"{name}, number {number}", f"is {value!r:.60}", fix)
            yield value

    return each()


def load(run: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> Pretrained:
    """Load a trained run, or several as an ensemble with the settings of the first.

    Args:
        run: A run directory, its name or `latest`; `RUN@best`, `RUN@last`, `RUN@update-12000`
            for this checkpoint, `RUN@last5` for the mean of the newest five; `hf:NAME` or
            `hf:NAME@REVISION` for a model on the Hugging Face Hub. `RUN_A+RUN_B`, or a list, is an
            ensemble.
        overrides: For example `decode.beam_size=12`; settings fixed by the checkpoint are refused.

    Raises:
        RunDirError: not a run, or a damaged one; or members with different vocabularies.
        ConfigError: an override is wrong.
    """
    # The runs, and whether they are of one kind
    texts = [run] if isinstance(run, str | Path) else run
    named = [each for text in texts for each in named_runs(str(text))]
    runs = [RunDir.open(each.path) for each in named]
    _check_vocabularies(runs)
    configs = [load_run_config(run.checked("config.yaml"), overrides) for run in runs]
    first = configs[0]
    for member, config in zip(runs, configs, strict=True):
        if config.data.tags != first.data.tags:
            unlike = f"its target languages are not those of {runs[0].root}"
            raise RunDirError(member.root, unlike, "Name runs of the same directions.")
        if config.data.placeholders != first.data.placeholders:
            unlike = f"its data.placeholders are not those of {runs[0].root}"
            raise RunDirError(member.root, unlike, "Name runs with the same placeholders.")
        if config.data.target_order is not first.data.target_order:
            order = f"writes {config.data.target_order}, {runs[0].root} does not"
            raise RunDirError(member.root, order, f"Use it to rescore: {command('rerank')}.")
    if (weights := first.decode.weights) is not None and len(weights) != len(runs):
        what = f"decode.weights={weights} are {len(weights)} for {len(runs)} runs"
        raise ConfigError("config", what, "Give one for each.")
    if first.threads is not None:
        torch.set_num_threads(first.threads)

    # Load all members on one device.
    for config in configs[1:]:
        config.device, config.decode.shortlist = first.device, None  # the first one's is used
    pretrained, *others = (
        Pretrained(run, config, each.selector)
        for run, config, each in zip(runs, configs, named, strict=True)
    )
    if others:
        pretrained.join(others)
    return pretrained


def _check_vocabularies(runs: Sequence[RunDir]) -> None:
    """Check that all runs have the vocabularies of the first."""
    manifests = [run.path(f"{TOKENIZERS}/{MANIFEST}") for run in runs]
    for path in manifests[1:]:
        if entries_of(path) != entries_of(manifests[0]):
            what = f"these vocabularies are not those of {manifests[0].parent}"
            fix = "Train the runs of an ensemble on one corpus, with one tokenizer."
            raise RunDirError(path.parent, what, fix)


def new_model(cfg: Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> EncoderDecoder:
    """Build the model of a config on its device, initialised from the config's seed."""
    torch.manual_seed(cfg.seed)
    return _build(cfg, tokenizers).to(pick_device(cfg.device))


def outline(cfg: Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> EncoderDecoder:
    """Build a model on the meta device: names and shapes of its weights, without memory."""
    with torch.device("meta"), _Undrawn():
        return _build(cfg, tokenizers)


class _Undrawn(TorchFunctionMode):
    """Leaves initial weights undrawn: on the meta device there are none.

    Drawing from a normal distribution there makes torch import its compiler, which takes seconds.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        own = getattr(func, "__module__", None) == "torch.nn.init"
        if own or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _build(cfg: Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> EncoderDecoder:
    source, target = map(len, tokenizers)
    return build_model(cfg, num_source=source, num_target=target, pad=PAD)


def pick_device(device: str) -> torch.device:
    """Return the device of a config; `auto` logs why CUDA cannot be used.

    Raises:
        PlatformError: CUDA or MPS was requested and is missing or does not work.
    """
    if device == "mps" and not torch.backends.mps.is_available():
        raise PlatformError("device", "torch finds no Apple GPU (MPS)", _OTHER_DEVICE)
    if device in ("cpu", "mps"):
        return torch.device(device)
    cuda = "cuda" if device == "auto" else device
    problem = _cuda_problem(cuda)
    if problem is None:
        if ":" in cuda:
            torch.cuda.set_device(cuda)  # where Triton's kernels run
        return torch.device(cuda)
    if device != "auto":
        raise PlatformError("device", problem, _OTHER_DEVICE)
    if problem != _NO_CUDA:
        log.warning("device=auto takes the CPU: %s", problem)
    return torch.device("cpu")


def visible_devices() -> str:
    """Return what the environment says of CUDA devices, for the log: they are counted from 0."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if visible is None else f" (CUDA_VISIBLE_DEVICES={visible})"


def _cuda_problem(device: str) -> str | None:
    """Return why CUDA does not work (no device, old driver, device in use), or None if it does."""
    with warnings.catch_warnings(record=True) as caught:  # how torch reports an old driver
        warnings.simplefilter("always")
        if not torch.cuda.is_available():
            reasons = [str(warning.message).split(" (Triggered")[0] for warning in caught]
            return f"CUDA cannot be used ({' '.join(reasons[0].split())})" if reasons else _NO_CUDA
    number, count = torch.device(device).index, torch.cuda.device_count()
    if number is not None and number >= count:
        return f"there is no {device}, only {count} from cuda:0{visible_devices()}"
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:  # torch raises it for every driver error
        first, *_ = str(error).splitlines() or [type(error).__name__]
        return f"CUDA cannot be used ({first})"
    return None
