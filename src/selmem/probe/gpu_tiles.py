# SPDX-License-Identifier: Apache-2.0
"""How the kernels of `gpu_step.py` are cut up, by the number of rows; set by what was measured."""

from typing import NamedTuple

from .gpu_product import MOST_IN_BRANCHES, MOST_MULTIPLICATIONS, Product


class Tile(NamedTuple):
    """How a kernel is cut up: rows and channels of a program, and its warps.

    With `ahead`, for convolve and select alone, the next kernel may start before this one waits.
    """

    rows: int
    channels: int
    warps: int
    ahead: bool = False


class Tiles(NamedTuple):
    """How the kernels of a layer are cut up; rows of the first two are at least 16.

    Without cuts of their own, `enter` (in_proj) and `leave` (out_proj) are the library's products.
    Rows are dealt out evenly to the `branches`.
    """

    convolve: Tile
    select: Tile
    recur: Tile
    enter: Product | None = None
    leave: Product | None = None
    branches: int = 1


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
    # measured against the tiles of 512: see gpu_branches.py
    256: MANY._replace(
        convolve=MANY.convolve._replace(ahead=True),
        select=MANY.select._replace(ahead=True),
        recur=Tile(2, 64, 2),
        branches=4,
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


def own_tiles(n_rows: int, weights: int) -> Tiles | None:
    """Return what is used with own products, or None where the library's are faster.

    Args:
        n_rows: of all branches.
        weights: of in_proj, how many.
    """
    if n_rows > max(TILES):
        return None
    tiles = _first(TILES, n_rows)
    most = MOST_MULTIPLICATIONS if tiles.branches == 1 else MOST_IN_BRANCHES
    return tiles if n_rows * weights <= most else None


def library_tiles(n_rows: int) -> Tiles:
    """Return what is used with the library's products: at 512 rows, branches were slower."""
    return _first(LIBRARY_TILES, n_rows)


def _first(tiles: dict[int, Tiles], n_rows: int) -> Tiles:
    return next(found for most, found in tiles.items() if n_rows <= most)
