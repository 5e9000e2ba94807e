"""Average marginal effects: by how much omission would change, had every word another tag."""

import numpy as np
import pandas as pd
from scipy import stats

from selmem.analysis.regression_model import LINK, Fit
from selmem.resampling import Floats


def marginal_effects(fit: Fit, words: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return for each tag the mean change of omission, had every word this tag and not `reference`.

    Intervals by the delta method; `raw_difference` is that of the plain rates.
    """
    tags = sorted(set(words["tag"]) - {reference})
    rates = words.groupby("tag")["omitted_aligned"].mean()
    base, base_gradient = mean_under(fit, None)
    rows = []
    for tag in tags:
        mean, gradient = mean_under(fit, tag)
        change = gradient - base_gradient
        se = float(np.sqrt(change @ fit.covariance @ change))
        half = stats.norm.ppf(0.975) * se
        effect = mean - base
        rows.append(
            {
                "tag": tag,
                "reference": reference,
                "raw_difference": rates[tag] - rates[reference],
                "effect": effect,
                "ci_low": effect - half,
                "ci_high": effect + half,
                "p_value": float(2 * stats.norm.sf(abs(effect) / se)) if se > 0 else np.nan,
                "n_words": int((words["tag"] == tag).sum()),
                "n_documents": int(words.loc[words["tag"] == tag, "document"].nunique()),
            }
        )
    return pd.DataFrame(rows)


def mean_under(fit: Fit, tag: str | None) -> tuple[float, Floats]:
    """Return the mean omission with every word's tag set to `tag`, and its gradient."""
    design = fit.design.copy()
    columns = next(part for term, part in fit.terms.items() if term.startswith("C(tag"))
    design[:, columns] = 0
    if tag is not None:
        design[:, next(i for i, name in enumerate(fit.names) if name.endswith(f"[T.{tag}]"))] = 1
    linear = design @ fit.coefficients + fit.offset
    slope = LINK.inverse_deriv(linear)
    return float(LINK.inverse(linear).mean()), slope @ design / len(design)
