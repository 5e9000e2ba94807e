# SPDX-License-Identifier: Apache-2.0
"""Whether and how the Triton kernels run here."""

import functools
import os
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

try:
    import triton
except ImportError:
    triton = None
try:
    from triton.experimental import gluon
except ImportError:
    gluon = None

_Rest = ParamSpec("_Rest")
_Result = TypeVar("_Result")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# whether kernels in Gluon run, which is experimental and may change with each version of Triton;
# ours ran with 3.6 and were compiled with 3.7
GLUON = gluon is not None and not INTERPRETED and triton.__version__.startswith(("3.6.", "3.7."))


def available() -> bool:
    """Return whether the kernels run here: on a CUDA device, or in Triton's interpreter."""
    return triton is not None and (INTERPRETED or torch.cuda.is_available())


def _jit(language: Any, kernel: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Compile `kernel` with `language`; without one, return it, never to be called."""
    if kernel is None:
        return functools.partial(_jit, language, **options)
    return kernel if language is None else language.jit(kernel, **options)


jit = functools.partial(_jit, triton)
jit_gluon = functools.partial(_jit, gluon if GLUON else None)


def on_its_device(
    launch: Callable[Concatenate[Tensor, _Rest], _Result],
) -> Callable[Concatenate[Tensor, _Rest], _Result]:
    """Make the device of the first argument the current one, which is where Triton launches."""

    @functools.wraps(launch)
    def guarded(first: Tensor, /, *rest: _Rest.args, **options: _Rest.kwargs) -> _Result:
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
            return launch(first, *rest, **options)

    return guarded


def rows(values: Tensor) -> Tensor:
    """Return `values` (B, T, D) with its last axis contiguous; views with row strides pass.

    Raises:
        ValueError: for a text so long that 32-bit numbers cannot count its values.
    """
    if values.stride(-1) != 1 and values.shape[-1] != 1:
        values = values.contiguous()
    if values.shape[1] * values.stride(1) >= 2**31:
        raise ValueError(
            f"a text of {values.shape[1]} tokens is too long for the Triton kernels; read it in "
            "pieces, each from the state after the one before"
        )
    return values


def cdiv(dividend: int, divisor: int) -> int:
    """Return the quotient rounded up."""
    return -(-dividend // divisor)


def power_of_2(number: int) -> int:
    """Return the smallest power of two that is at least `number`, which is positive."""
    return 1 << (number - 1).bit_length()


def launch_options(warps: int, *, early: bool) -> dict[str, Any]:
    """Return how a kernel is launched, with the argument that tells it so."""
    options: dict[str, Any] = {"EARLY": early, "num_warps": warps}
    return options | {"launch_pdl": True} if early else options


def may_start_early(device: torch.device) -> bool:
    """Return whether `device` can start a kernel while the one before it ends."""
    if device.type != "cuda" or INTERPRETED or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (9, 0)
