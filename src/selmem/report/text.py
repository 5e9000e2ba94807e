"""Numbers as the report and the terminal write them."""

import math

from selmem.statistics import MIN_DOCUMENTS_INTERVAL

MINUS = "\N{MINUS SIGN}"
MISSING = "\N{EN DASH}"


def number(value: float, digits: int = 1) -> str:
    """Return a number with a true minus sign; a dash where it is unknown.

    >>> number(-1.25, 2), number(float("nan"))
    ('−1.25', '–')
    """
    if not math.isfinite(value):
        return MISSING
    return f"{value:,.{digits}f}".replace("-", MINUS)


def percent(value: float, digits: int = 1) -> str:
    """Return a fraction in percent.

    >>> percent(0.1234), percent(float("nan"))
    ('12.3 %', '–')
    """
    return f"{number(100 * value, digits)} %" if math.isfinite(value) else MISSING


def interval(low: float, high: float, n_documents: int, *, digits: int = 1) -> str:
    """Return the interval of a fraction, in percent, or why there is none.

    >>> interval(0.1, 0.2, 30), interval(float("nan"), float("nan"), 7)
    ('[10.0, 20.0]', '[7 docs: too few]')
    """
    if math.isfinite(low) and math.isfinite(high):
        return f"[{number(100 * low, digits)}, {number(100 * high, digits)}]"
    if n_documents < MIN_DOCUMENTS_INTERVAL:
        return f"[{n_documents} docs: too few]"
    return ""


def signed(value: float, *, is_correlation: bool, keep_sign: bool = False) -> str:
    """Return a difference in points, or a correlation, with its sign.

    Args:
        value: a fraction, or a correlation.
        is_correlation: which of the two.
        keep_sign: write as many digits as show on which side of 0 it lies, at most three more; for
            the ends of an interval.

    >>> signed(0.0123, is_correlation=False), signed(-0.5, is_correlation=True)
    ('+1.2', '−0.50')
    >>> signed(-0.0001, is_correlation=False)
    '0.0'
    >>> signed(-0.0001, is_correlation=False, keep_sign=True)
    '−0.01'
    """
    if not math.isfinite(value):
        return MISSING
    value, digits = (value, 2) if is_correlation else (100 * value, 1)
    while keep_sign and value and not round(value, digits) and digits < 4:
        digits += 1
    rounded = round(value, digits) + 0.0  # no negative zero
    return f"{rounded:+.{digits}f}".replace("-", MINUS) if rounded else f"{0:.{digits}f}"
