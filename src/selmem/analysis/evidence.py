"""What counts as evidence for a claim, an effect with its interval, and the claims themselves."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from selmem.analysis.correlations import correlation_interval
from selmem.statistics import Bootstrap

PAPER_CLAIMS = Path(__file__).parents[1] / "data" / "paper_claims.json"


@dataclass(frozen=True)
class Effect:
    """An estimate in the claim's direction.

    Attributes:
        value: a difference of fractions, or a rank correlation.
        n_documents: documents behind it.
        p_value: two-sided, against 0; nan where there are too few documents to test.
        interval: confidence level -> (low, high); nan where there are too few documents.
        is_correlation: which of the two it is.
    """

    value: float
    n_documents: int
    p_value: float
    interval: Callable[[float], tuple[float, float]]
    is_correlation: bool

    @classmethod
    def of_difference(cls, result: Bootstrap, *, of_rates: bool) -> "Effect":
        """Take the only quantity of `result`.

        Args:
            result: a difference, or a mean of several.
            of_rates: whether it is one of rates in [0, 1].
        """

        def interval(level: float) -> tuple[float, float]:
            low, high = result.interval(level, of_rates=of_rates)
            return float(low[0]), float(high[0])

        p_value = float(result.p_value(of_rates=of_rates)[0])
        return cls(float(result.value[0]), int(result.n_documents[0]), p_value, interval, False)

    @classmethod
    def of_correlation(cls, value: float, se_z: float, n_documents: int) -> "Effect":
        """Take a correlation and its standard error on Fisher's z scale."""

        def interval(level: float) -> tuple[float, float]:
            return correlation_interval(value, se_z, n_documents, level)[:2]

        p_value = correlation_interval(value, se_z, n_documents)[2]
        return cls(value, n_documents, p_value, interval, True)


@dataclass(frozen=True)
class Evidence:
    """What a measurement says about a claim at one length."""

    paper_rule: float  # the paper's measure, in the claim's direction
    effect: Effect  # after controls
    measure: str  # of the effect
    note: str = ""


@cache
def paper_claims() -> Mapping[str, Mapping[str, Any]]:
    """Return {claim: statement, measure, cells by length, source} of the source paper."""
    claims: Mapping[str, Mapping[str, Any]] = json.loads(PAPER_CLAIMS.read_text("utf-8"))["claims"]
    return claims
