# SPDX-License-Identifier: Apache-2.0
"""Work on a GPU side by side, on streams of its own; in a CUDA graph, as branches of it.

Measured for the rows of a step of `gpu_step.py`, in microseconds for a token of 24 layers with 768
hidden and 1,536 inner channels, graph replays on an H200 with torch 2.11 and triton 3.6, each with
the fastest tiles and products that were tried:

| rows | one branch | two | four |
|---|---|---|---|
| 64 | 490 | 494 | 552 |
| 128 | 558 | 534 | 622 |
| 256 | 790 | 754 | 747 |
| 512 | 1,320 | 1,277 | 1,223 |

With kernels that let the next one start ahead (`gpu_tiles.py`), 256 rows in four branches take 730.
Since then 256 rows have become faster (`gpu_tiles.py`): 804, 736, 687 us in one, two and four
branches before the last of what is told there. For other numbers of rows, and for other widths,
nothing was measured.
"""

from collections.abc import Iterator, Sequence

import torch


class Branches:
    """Streams that fork from the current one and join it again.

    Args:
        device: on which work is launched; without CUDA, branches take turns on it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._streams: list[torch.cuda.Stream] = []

    def run(self, branches: Sequence[Iterator[None]]) -> None:
        """Finish all of `branches`, the first on the current stream, with its device current.

        What is launched next waits for all of them. A branch yields where the others may launch.
        Only between kernels of one stream may one start while the other ends: so the first kernel
        of a branch, and the first one after the branches, must be launched without.
        """
        streams = self._forked(len(branches) - 1)
        going = list(zip([None, *streams], branches, strict=True))
        while going:
            going = [(stream, branch) for stream, branch in going if _advanced(stream, branch)]
        for stream in streams:
            if stream is not None:
                torch.cuda.current_stream().wait_stream(stream)

    def _forked(self, count: int) -> Sequence[torch.cuda.Stream | None]:
        """Return so many streams, which wait for the current one."""
        if self._device.type != "cuda":
            return [None] * count
        while len(self._streams) < count:
            self._streams.append(torch.cuda.Stream(self._device))  # type: ignore[no-untyped-call]
        for stream in self._streams[:count]:
            stream.wait_stream(torch.cuda.current_stream())
        return self._streams[:count]


def _advanced(stream: torch.cuda.Stream | None, branch: Iterator[None]) -> bool:
    """Go on with a branch, on the current stream if `stream` is None; return False at its end."""
    with torch.cuda.stream(stream):
        return next(branch, False) is None
