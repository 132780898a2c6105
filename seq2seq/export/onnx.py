"""A trained model as two ONNX graphs, `begin` and `step`, for onnxruntime and its like.

    begin   source ids and mask       -> log p of the first word, alpha, state
    step    words before, state       -> log p of the next word, alpha, the state that moves

`begin` reads the source and takes the first step, whose word before is always y_0. Each row of a
state is one hypothesis, so a beam search reorders all tensors of a state by the same index. Only
`Stepper` is used, so that a model of any extension exports, too.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seq2seq.data.batching import pad_ids
from seq2seq.data.tokenizer import EOS, PAD, UNK
from seq2seq.export.bundle import Bundle
from seq2seq.model.backend import Backend
from seq2seq.model.encoder_decoder import EncoderDecoder
from seq2seq.model.protocols import Cell
from seq2seq.model.transformer import Positions, WordsAndPositions, sinusoids
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError

log = logging.getLogger(__name__)

BATCH, SOURCE, PREFIX = "batch", "source", "prefix"
"""Names of the sizes that may vary: hypotheses, source tokens, words so far."""

_SIZES = ({BATCH: 2, SOURCE: 5, PREFIX: 3}, {BATCH: 3, SOURCE: 7, PREFIX: 4})
"""Two states of these sizes show which of its dimensions vary; the first is traced."""


@dataclass(frozen=True)
class Graph:
    """One graph and the names of its inputs and outputs, in order."""

    model: bytes
    inputs: Sequence[str]
    outputs: Sequence[str]


DECODER = "decode_onnx.py"  # translates with nothing but numpy, onnxruntime and sentencepiece


def save(bundle: Bundle, out: RunDir) -> None:
    """Write the graphs of a run's model, with its vocabularies and a decoder.

    Raises:
        ConfigError: torch cannot export it.
    """
    found = graphs(bundle.model)
    for name, graph in found.items():
        out.write(f"{name}.onnx", graph.model)
    names = {k: {"inputs": v.inputs, "outputs": v.outputs} for k, v in found.items()}
    bundle.write(out, names)
    if bundle.special is None:
        out.write(DECODER, Path(__file__).with_name(DECODER).read_bytes())
    else:
        log.warning("%s is left out, as it cannot decode this model: %s", DECODER, bundle.special)


@torch.no_grad()
def graphs(model: EncoderDecoder) -> Mapping[str, Graph]:
    """Return `begin` and `step` of a model with `model.backend=reference`; it is changed in place.

    Raises:
        ConfigError: torch cannot export it.
    """
    # The tensors of a state, the dimensions of each that vary, and which of them a step changes
    small, large = (_state(model, **sizes) for sizes in _SIZES)
    names = [f"state{name}" for name, _ in _tensors(small)]
    dims = [_varying(*pair) for pair in zip(_only(small), _only(large), strict=True)]
    _, after = model.step(torch.full((_SIZES[0][BATCH],), UNK), small)
    moving = [new is not old for new, old in zip(_only(after), _only(small), strict=True)]
    moved = [f"next.{name}" for name, moves in zip(names, moving, strict=True) if moves]
    # One graph that reads the source, and one that takes a step
    _prepare(model)
    src, mask = _source(_SIZES[0][BATCH], _SIZES[0][SOURCE])
    of_source, predicted = {0: BATCH, 1: SOURCE}, ["log_probs", "alpha"]
    source = {"src": (src, of_source), "mask": (mask, of_source)}
    before: dict[str, tuple[Tensor, Mapping[int, str]]] = {"y": (src[:, 0], {0: BATCH})}
    before |= zip(names, zip(_only(small), dims, strict=True), strict=True)
    return {
        "begin": _graph(_Begin(model), source, [*predicted, *names]),
        "step": _graph(_Step(model, small, moving), before, [*predicted, *moved]),
    }


class _Begin(nn.Module):
    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, src: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        y_0 = torch.full_like(src[:, 0], PAD)
        prediction, state = self.model.step(y_0, self.model.begin(src, mask))
        return prediction.log_probs(), prediction.alpha, *_only(state)


class _Step(nn.Module):
    def __init__(self, model: EncoderDecoder, state: Any, moving: Sequence[bool]) -> None:
        super().__init__()
        self.model, self.state, self.moving = model, state, moving

    def forward(self, y: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        prediction, after = self.model.step(y, _filled(self.state, iter(state)))
        moved = [x for x, moves in zip(_only(after), self.moving, strict=True) if moves]
        return prediction.log_probs(), prediction.alpha, *moved


def _graph(
    module: nn.Module, inputs: Mapping[str, tuple[Tensor, Mapping[int, str]]], outputs: list[str]
) -> Graph:
    """Trace a module along its inputs, each with the names of the dimensions that vary."""
    examples, dims = zip(*inputs.values(), strict=True)
    # The strides of views would be traced, too.
    examples = tuple(x.clone(memory_format=torch.contiguous_format) for x in examples)
    # torch puts variable arguments into one tuple.
    shapes = (dims[0], dims[1:]) if isinstance(module, _Step) else dims
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # of packages that we do not need
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            names: dict[str, Any] = {"input_names": [*inputs], "output_names": outputs}
            program = torch.onnx.export(
                module.eval(), examples, dynamic_shapes=shapes, verbose=False, **names
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        what = f"torch cannot export this model to ONNX ({reason})"
        raise ConfigError("config", what, "Use `seq2seq.load` in Python.") from None
    finally:
        logger.setLevel(level)
    assert program is not None
    return Graph(program.model_proto.SerializeToString(), [*inputs], outputs)


# What a graph needs of the model -----------------------------------------------------------------


class _Scan(Backend):
    """Reads a source of any length by a loop of the graph; Python's would have a fixed length."""

    @staticmethod
    def read(
        units: Sequence[Cell], x: Tensor, mask: Tensor, start: Tensor | None = None
    ) -> list[Tensor]:
        """See `recurrence.read`."""
        return [
            _scanned(unit, x, mask, backward)
            for unit, backward in zip(units, (False, True), strict=False)
        ]


def _scanned(unit: Cell, x: Tensor, mask: Tensor, backward: bool) -> Tensor:
    """Return the outputs (B, Tx, n) of `recurrence.run_cell`."""
    from torch._higher_order_ops.scan import scan  # the only loop that torch.onnx knows

    def step(
        state: tuple[Tensor, ...], inputs: tuple[Tensor, Tensor]
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        projected, real = inputs
        moved = zip(unit.step(projected, state), state, strict=True)
        state = tuple(torch.where(real[:, None], new, old) for new, old in moved)
        return state, unit.output(state).clone()  # outputs must not share memory

    first = tuple(x.clone() for x in unit.begin(x.new_zeros(x.shape[0], unit.hidden_size)))
    along = unit.project(x).transpose(0, 1), mask.transpose(0, 1)
    _, h = scan(step, first, along, reverse=backward)
    outputs: Tensor = h.transpose(0, 1)
    return outputs


class _Sinusoids(Positions):
    """Sinusoids of any position, without the cache."""

    def forward(self, first: int, count: int, like: Tensor) -> Tensor:
        """See `Positions.forward`."""
        return sinusoids(first + count, self.width)[first:].to(like.dtype)


def _prepare(model: nn.Module) -> None:
    for module in model.modules():
        if hasattr(module, "backend"):
            module.backend = _Scan()  # type: ignore[assignment]
        if isinstance(module, WordsAndPositions) and module.positions.learned is None:
            module.positions = _Sinusoids(module.positions.width, None)


# States as lists of tensors ----------------------------------------------------------------------


def _state(model: EncoderDecoder, batch: int, source: int, prefix: int) -> Any:
    """Return the state after `prefix` words."""
    state: Any = model.begin(*_source(batch, source))
    for word in (PAD, *[UNK] * (prefix - 1)):
        _, state = model.step(torch.full((batch,), word), state)
    return state


def _source(batch: int, length: int) -> tuple[Tensor, Tensor]:
    return pad_ids([[UNK] * (length - 1) + [EOS]] * batch, PAD)


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a state with their names, such as `.cell.0`."""
    if isinstance(state, Tensor):
        yield name, state
    elif is_dataclass(state):
        for field in fields(state):
            yield from _tensors(getattr(state, field.name), f"{name}.{field.name}")
    elif isinstance(state, tuple | list):
        for number, part in enumerate(state):
            yield from _tensors(part, f"{name}.{number}")
    else:
        assert state is None, f"{name} is neither a tensor nor made of tensors"


def _only(state: Any) -> list[Tensor]:
    return [tensor for _, tensor in _tensors(state)]


def _filled(state: Any, tensors: Iterator[Tensor]) -> Any:
    """Return a state with other tensors, in the order of `_tensors`."""
    if isinstance(state, Tensor):
        return next(tensors)
    if is_dataclass(state) and not isinstance(state, type):
        return replace(
            state, **{x.name: _filled(getattr(state, x.name), tensors) for x in fields(state)}
        )
    if isinstance(state, tuple | list):
        return type(state)(_filled(part, tensors) for part in state)
    return state


def _varying(small: Tensor, large: Tensor) -> dict[int, str]:
    """Return the names of the dimensions in which two states of `_SIZES` differ."""
    known = {(_SIZES[0][name], _SIZES[1][name]): name for name in _SIZES[0]}
    pairs = zip(small.shape, large.shape, strict=True)
    return {i: known[pair] for i, pair in enumerate(pairs) if pair[0] != pair[1]}
