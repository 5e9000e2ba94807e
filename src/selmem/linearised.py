"""Signed sums of ratios of document totals, with linearised variances.

Source: Särndal, Swensson and Wretman 1992, section 5.5 (linearised variance of a ratio).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selmem.resampling import Floats

_ROUNDING = 1e-13  # a variance below this share of its parts is 0


@dataclass(frozen=True)
class Linearised:
    """C signed sums of J ratios each, in R weightings of the documents.

    Attributes:
        value: (R, C).
        variance: (R, C) linearised.
        ratios: (R, C, J).
        ratio_variances: (R, C, J) linearised; exactly 0 where the ratio does not vary.
    """

    value: Floats
    variance: Floats
    ratios: Floats
    ratio_variances: Floats


def columns_of(numerators: ArrayLike, denominators: ArrayLike, n_ratios: int) -> Floats:
    """Return (G, C, 2 J): the sums per document, numerator and denominator in turn.

    Raises:
        ValueError: the two differ in shape, or have another number of ratios.
    """
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    if top.shape != bottom.shape:
        raise ValueError(f"numerators are {top.shape} but denominators {bottom.shape}")
    if top.ndim == 2:
        top, bottom = top[:, :, None], bottom[:, :, None]
    if top.ndim != 3 or top.shape[2] != n_ratios or not len(top):
        raise ValueError(
            f"got {top.shape} for {n_ratios} coefficients; expected (documents, cells, {n_ratios})"
        )
    return np.stack([top, bottom], axis=-1).reshape(*top.shape[:2], 2 * n_ratios)


def linearise(
    weights: Floats, columns: Floats, strata: NDArray[np.generic], signs: Floats
) -> Linearised:
    """Return the quantities under each weighting.

    Args:
        weights: (R, G) how often each document counts.
        columns: (G, C, 2 J) of `columns_of`.
        strata: (G,) labels; variances are taken within each.
        signs: (J,) coefficients of the ratios.
    """
    totals, covariances = _moments(weights, columns, strata)
    ratios, unsigned = _gradients(totals)
    gradient = (unsigned * signs[:, None]).reshape(totals.shape)
    variance = np.einsum("rci,rcij,rcj->rc", gradient, covariances, gradient)
    blocks = np.stack(
        [covariances[..., j : j + 2, j : j + 2] for j in range(0, totals.shape[-1], 2)], axis=2
    )
    ratio_variances = np.einsum("rcji,rcjik,rcjk->rcj", unsigned, blocks, unsigned)
    parts = np.einsum("rcji,rcjii->rcj", unsigned**2, np.abs(blocks))
    return Linearised(
        value=(ratios * signs).sum(axis=-1),
        variance=_cleaned(variance, parts @ signs**2),
        ratios=ratios,
        ratio_variances=_cleaned(ratio_variances, parts),
    )


def effective_documents(
    columns: Floats, strata: NDArray[np.generic], signs: Floats
) -> NDArray[np.float64]:
    """Return how many documents carry the variance of each quantity, (C,); nan where it is 0.

    It is (sum of z^2)^2 / sum of z^4 over the documents' influences z: a third of the documents
    where z is normal, and 1 where a single document makes all of the variance.
    """
    _, unsigned = _gradients(columns.sum(axis=0)[None])
    gradient = (unsigned * signs[:, None]).reshape(columns.shape[1:])
    influence = np.einsum("gci,ci->gc", columns, gradient)
    for label in np.unique(strata):
        inside = strata == label
        influence[inside] -= influence[inside].mean(axis=0)
    largest = np.abs(influence).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        squares = (influence / largest) ** 2
        return np.asarray(squares.sum(axis=0) ** 2 / (squares**2).sum(axis=0))


def _gradients(totals: Floats) -> tuple[Floats, Floats]:
    """Return the ratios (R, C, J) and their gradients by numerator and denominator."""
    top, bottom = totals[..., 0::2], totals[..., 1::2]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = top / bottom
        return ratios, np.stack([1 / bottom, -ratios / bottom], axis=-1)


def _cleaned(variance: Floats, parts: Floats) -> Floats:
    return np.where(variance > _ROUNDING * parts, variance, 0.0)


def _moments(
    weights: Floats, columns: Floats, strata: NDArray[np.generic]
) -> tuple[Floats, Floats]:
    """Return totals (R, C, k) and the covariance matrices of the totals (R, C, k, k)."""
    n_cells, k = columns.shape[1:]
    first, second = np.triu_indices(k)
    totals = np.zeros((len(weights), n_cells, k))
    triangles = np.zeros((len(weights), n_cells, len(first)))
    for label in np.unique(strata):
        inside = strata == label
        w, x = weights[:, inside], columns[inside]
        n = len(x)
        sums = (w @ x.reshape(n, -1)).reshape(totals.shape)
        totals += sums
        if n > 1:
            products = (w @ (x[..., first] * x[..., second]).reshape(n, -1)).reshape(
                triangles.shape
            )
            triangles += (products - sums[..., first] * sums[..., second] / n) * (n / (n - 1))
    covariances = np.empty((len(weights), n_cells, k, k))
    covariances[..., first, second] = triangles
    covariances[..., second, first] = triangles
    return totals, covariances
