"""Products in bfloat16 under autocast, everything else in the format of the weights."""

import torch
from torch import Tensor


def product_format(weight: Tensor) -> torch.dtype:
    """Return the format of the factors of products with a weight."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype is torch.float32:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def plus_product(base: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return base + left right, for (b, i) (i, j) or batches of them, in the format of `right`."""
    if left.dtype == right.dtype:
        add = torch.baddbmm if left.dim() == 3 else torch.addmm
        return add(base, left, right)
    return base + torch.matmul(left.to(right.dtype), right)


def product(left: Tensor, right: Tensor, narrow: torch.dtype) -> Tensor:
    """Return left right in the format of `left`, with factors in another."""
    return torch.matmul(left.to(narrow), right.to(narrow)).to(left.dtype)
