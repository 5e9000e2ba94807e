# SPDX-License-Identifier: Apache-2.0
"""How the kernels of `gpu_step.py` are cut up, by the number of rows; set by what was measured.

A token of 256 rows, of the model in `gpu_branches.py` and on its machine, takes 641 to 645 us; it
took 742 with the tiles of 512 rows and early starts. Measured in one run each:

| of 256 rows | us without | with |
|---|---|---|
| norms within the products, an own output layer, the best tiles of a search | 746 | 692 |
| a share of the states brought to the L2 cache | 668 | 654 |
| windows as rings instead of shifted | 665 | 654 |
| out_proj in Gluon | 674 | 649 |
| in_proj in Gluon | 646 | 642 |

What was slower: convolution within in_proj, dt_proj within the recurrence, branches that start one
after another, an output layer for each branch, weights brought to the L2 cache, states loaded so
that they leave it first. Graphs of seven steps were .6 % faster, and take 200 ms to record.
"""

from typing import NamedTuple

from .gpu_product import Product
from .triton_runtime import power_of_2


class Tile(NamedTuple):
    """How a kernel is cut up: rows and channels of a program, and its warps.

    With `ahead`, the next kernel may start before this one waits.
    """

    rows: int
    channels: int
    warps: int
    ahead: bool = False


class Tiles(NamedTuple):
    """How the kernels of a layer are cut up; rows of the first two are at least 16.

    Without cuts of their own, `enter` (in_proj) and `leave` (out_proj) are the library's products.
    Rows are dealt out evenly to the `branches`.

    With `folded`, for own products, the norms between layers are no kernels: `leave`, of one part,
    adds to the stream, and `enter` scales. Without, not all five kernels of a layer may be ahead:
    a norm reads the stream before it waits.
    With `head`, the output layer chooses at once, and no logits are written.
    Convolve brings the share `prefetch` of a layer's states to the L2 cache.
    """

    convolve: Tile
    select: Tile
    recur: Tile
    enter: Product | None = None
    leave: Product | None = None
    branches: int = 1
    folded: bool = False
    head: Product | None = None
    prefetch: float = 0.0


ENTER = Product(rows=64, columns=64, factors=128, parts=1, warps=4, stages=3)
LEAVE = Product(rows=64, columns=32, factors=128, parts=2, warps=4, stages=4)

MANY = Tiles(
    Tile(16, 256, 8), Tile(16, 256, 8), Tile(1, 64, 2), Product(64, 64, 64, 1, 4, 6), LEAVE
)
# the first whose number of rows, of all branches, is not exceeded; with own products
TILES = {
    16: Tiles(Tile(16, 64, 4), Tile(16, 64, 4), Tile(1, 32, 2), ENTER, LEAVE),
    64: Tiles(Tile(16, 128, 8), Tile(16, 128, 4), Tile(1, 64, 4), ENTER, LEAVE),
    192: MANY._replace(branches=2),
    256: Tiles(
        convolve=Tile(16, 512, 8, ahead=True),
        select=Tile(16, 128, 8, ahead=True),
        recur=Tile(2, 64, 2, ahead=True),
        enter=Product(64, 128, 64, 1, 4, 5, ahead=True, gluon=True),
        leave=Product(64, 32, 256, 1, 4, 4, gluon=True),
        branches=4,
        folded=True,
        head=Product(128, 256, 64, 1, 8, 4),
        prefetch=0.4,
    ),
    512: MANY._replace(branches=4),
}
# likewise with the library's products
LIBRARY_TILES = {
    16: TILES[16]._replace(enter=None, leave=None),
    64: TILES[64]._replace(enter=None, leave=None),
    256: MANY._replace(enter=None, leave=None),
    512: Tiles(Tile(16, 128, 4), Tile(16, 256, 8), Tile(2, 64, 4)),
    2**31: Tiles(Tile(32, 128, 8), Tile(16, 256, 8), Tile(2, 64, 4)),
}


# multiplications of in_proj with own products, at the most that was measured to gain, 768 to
# 2 * 1,536 channels: 256 rows in one branch, 512 in all branches together
MOST_MULTIPLICATIONS = 256 * 768 * 3072
MOST_IN_BRANCHES = 512 * 768 * 3072
# weights of x_proj that a program of convolve keeps in shared memory, in bfloat16 131 KB of 227
MOST_SELECTED = 128 * 512


def own_tiles(n_rows: int, weights: int, selected: int) -> Tiles | None:
    """Return what is used with own products, or None where the library's are faster.

    Args:
        n_rows: of all branches.
        weights: of in_proj, how many.
        selected: what x_proj makes of a row, R + 2N.
    """
    if n_rows > max(TILES):
        return None
    tiles = _first(TILES, n_rows, selected)
    most = MOST_MULTIPLICATIONS if tiles.branches == 1 else MOST_IN_BRANCHES
    return tiles if n_rows * weights <= most else None


def library_tiles(n_rows: int, selected: int) -> Tiles:
    """Return what is used with the library's products: at 512 rows, branches were slower."""
    return _first(LIBRARY_TILES, n_rows, selected)


def _first(tiles: dict[int, Tiles], n_rows: int, selected: int) -> Tiles:
    """Return the first for so many rows whose convolve has room for x_proj, or else the last."""
    most_channels = MOST_SELECTED // power_of_2(selected)
    many = [found for most, found in tiles.items() if n_rows <= most]
    return next((found for found in many if found.convolve.channels <= most_channels), many[-1])
