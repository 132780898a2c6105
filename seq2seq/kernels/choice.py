"""Chooses the implementation of each kernel: C, Triton, or torch operations.

The choice depends on device and dtype at call time, since a model may move after it is built.
"""

import torch
from torch import Tensor, nn

from seq2seq.kernels import gpu, native
from seq2seq.kernels.logits import LossOfLogits, torch_loss
from seq2seq.kernels.loops import StepLoops
from seq2seq.kernels.native.build import Library
from seq2seq.kernels.native.loops import NativeLoops
from seq2seq.kernels.native.output import NativeLoss
from seq2seq.kernels.native.search import NativeSearch, NativeWords
from seq2seq.kernels.steps import TORCH, Steps
from seq2seq.kernels.torch_search import SearchWeights, TorchSearch, TorchWords


def loops_for(states: Tensor, dtype: torch.dtype, *, reset_before: bool) -> StepLoops | NativeLoops:
    """Return the loops for states like these, with matmuls in `dtype`."""
    library = _library_for(states, dtype)
    if library is not None:
        return NativeLoops(library, dtype, reset_before)
    return StepLoops(steps_for(states, dtype), dtype, reset_before)


def steps_for(states: Tensor, dtype: torch.dtype) -> Steps:
    """Return the steps for states like these, with matmuls in `dtype`."""
    found = gpu.steps_for(states, dtype) if states.device.type == "cuda" else None
    return found or TORCH


def loss_for(weight: Tensor, dtype: torch.dtype) -> LossOfLogits:
    """Return the loss function for an output layer with this weight."""
    library = _library_for(weight, dtype)
    return torch_loss if library is None else NativeLoss(library)


def search_for(weights: SearchWeights) -> TorchSearch | NativeSearch:
    """Return the search engine for these weights."""
    library = _library_for(weights.last.weight, weights.dtype)
    if library is not None:
        return NativeSearch(library, weights)
    assert weights.dtype is not torch.int8  # whoever asks for it makes sure that it is there
    return TorchSearch(weights)


def words_for(last: nn.Linear, dtype: torch.dtype) -> TorchWords | NativeWords:
    """Return the search engine for the words of an output layer."""
    library = _library_for(last.weight, dtype)
    return TorchWords(last, dtype) if library is None else NativeWords(library, last, dtype)


def _library_for(states: Tensor, dtype: torch.dtype) -> Library | None:
    """Return the native library for float32 states on a CPU; None where it cannot run."""
    known = dtype in (torch.float32, torch.bfloat16, torch.int8) and states.dtype is torch.float32
    library = native.library() if known and states.device.type == "cpu" else None
    return library if library is not None and library.multiplies(dtype) else None
