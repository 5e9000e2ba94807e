# SPDX-License-Identifier: Apache-2.0
"""The metric `selmem/omission_rate`: the share of a text's words that a reconstruction lacks."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import numpy.typing as npt

from .alignment import aligned_omissions
from .chance import DRAWS, chance_rates, derangements
from .inputs import Pairs, read_pairs, read_tables
from .rules import count_omissions

METRIC_VERSION = "1.0.0"  # changes whenever a number can change
MIN_DOCUMENTS = 10  # for an interval
RESAMPLES = 1000

Words = npt.NDArray[Any]  # one entry for each word of all references together

_DESCRIPTION = (
    "The share of the reference's words that a reconstruction lacks: by surface (rule count) "
    "and in order (rule aligned), over all words and by tag, beside the rate that chance gives."
)

_CITATION = """\
@inproceedings{hossain-etal-2025-characterizing,
    title = "Characterizing {M}amba's Selective Memory using Auto-Encoders",
    author = "Hossain and Logan IV and Jagadeesan and Singh and Tetreault and Jaimes",
    booktitle = "Proceedings of AACL-IJCNLP 2025",
    year = "2025",
    url = "https://arxiv.org/abs/2512.15653",
}
"""

_INPUTS_DESCRIPTION = """
Args:
    predictions: reconstructions; strings, lists of words, or token records.
    references: the texts as they were, in the same form. Strings are split into runs of letters,
        digits and underscores, and single other characters; in a list every entry is a word.
        A token record of a prediction has `text`, `pretoken_ends` (characters after which the
        tokenizer's pre-tokens end) and `token_ids`; one of a reference has for each word also
        `char_start`, `char_end`, `token_start`, `n_tokens` and `cut` (a chunk's border cuts it).
        `read_tables` makes such records from the tables of the dataset `selmem/omissions`.
    tags: for every reference one tag for each word, or None for words without; optional.
    documents: for every reference the document it is from, which intervals resample and within
        which chance compares nothing; by default every reference is a document.
    chance_draws: reconstructions of other documents that chance is the mean over; 0 leaves
        chance out.
    seed: of the random numbers behind chance and intervals.

Returns:
    omission_rate: omitted / all words under the rule count, from 0 to 1.
    omission_rate_aligned: the same under the rule aligned.
    chance_rate, chance_rate_aligned: the same against reconstructions of other documents of the
        same length; None where there is no other document.
    interval, interval_aligned: 95 % bounds, by resampling documents; None below 10 documents.
    n_words, n_documents: what the rates are over.
    by_tag: the entries above for every tag.
    cut: the entries above for words cut by a chunk's border, which are in no other; or None.
    metric_version: changes whenever a number can change.

Examples:
    >>> import evaluate
    >>> metric = evaluate.load("selmem/omission_rate")
    >>> results = metric.compute(
    ...     predictions=["The cat ate 13 mice.", "No dog barked."],
    ...     references=["The cat ate 12 mice.", "The dog barked at the dog."],
    ... )
    >>> round(results["omission_rate"], 4), round(results["omission_rate_aligned"], 4)
    (0.3846, 0.3846)
    >>> tagged = metric.compute(
    ...     predictions=[["Kim", "met", "them"]],
    ...     references=[["Kim", "met", "Lee"]],
    ...     tags=[["PER", "O", "PER"]],
    ... )
    >>> tagged["by_tag"]["PER"]["omission_rate"], tagged["by_tag"]["PER"]["n_words"]
    (0.5, 2)
"""


class OmissionRate(evaluate.Metric):
    """The omission rate under the rules count and aligned, by tag, with chance and intervals."""

    read_tables = staticmethod(read_tables)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS_DESCRIPTION,
            features=_features(),
            reference_urls=["https://arxiv.org/abs/2512.15653"],
        )

    def add_batch(self, *, predictions: Any = None, references: Any = None, **unknown: Any) -> None:
        """Take in texts, after a check for what evaluate would not refuse or refuse unclearly.

        Raises:
            ValueError: one of both is missing, empty or a lone string, or they do not fit.
        """
        for name, texts in (("predictions", predictions), ("references", references)):
            if texts is None or isinstance(texts, str) or not len(texts):
                raise ValueError(f"{name} is {texts!r}, expected a list of at least one text")
        super().add_batch(predictions=predictions, references=references, **unknown)

    def _compute(
        self,
        predictions: Sequence[Any],
        references: Sequence[Any],
        tags: Sequence[Sequence[str | None]] | None = None,
        documents: Sequence[Any] | None = None,
        chance_draws: int = DRAWS,
        seed: int = 0,
    ) -> dict[str, Any]:
        pairs = read_pairs(predictions, references)
        counts = [reference.n_words for reference in pairs.references]
        if not sum(counts):
            raise ValueError("the references hold no word")
        documents = list(range(len(counts)) if documents is None else documents)
        if len(documents) != len(counts):
            raise ValueError(f"{len(documents)} documents came with {len(counts)} references")
        masks = _masks(pairs, _flat_tags(tags, counts))
        outcomes = _omissions(pairs) | _chances(pairs, documents, chance_draws, seed)
        rows = _rows(outcomes, masks, _word_documents(documents, counts), seed)
        cut_row = rows.pop("cut")
        return {
            **rows.pop("all"),
            "cut": cut_row if cut_row["n_words"] else None,
            "by_tag": {name.removeprefix("tag "): row for name, row in rows.items()},
            "metric_version": METRIC_VERSION,
        }


def _features() -> list[datasets.Features]:
    string, integer = datasets.Value("string"), datasets.Value("int32")
    integers = datasets.List(integer)
    record = {"text": string, "pretoken_ends": integers, "token_ids": integers}
    spans = dict.fromkeys(("char_start", "char_end", "token_start", "n_tokens"), integers)
    words = {**spans, "cut": datasets.List(datasets.Value("bool"))}
    # the first that fits is taken, and a string fits anything
    forms = [
        (record, {**record, **words}),
        (datasets.List(string), datasets.List(string)),
        (string, string),
    ]
    return [datasets.Features({"predictions": p, "references": r}) for p, r in forms]


def _flat_tags(tags: Sequence[Sequence[str | None]] | None, counts: Sequence[int]) -> Words:
    """Return one tag for each word of all references."""
    if tags is None:
        return np.full(sum(counts), None)
    if len(tags) != len(counts):
        raise ValueError(f"tags for {len(tags)} texts came with {len(counts)} references")
    for index, (row, count) in enumerate(zip(tags, counts, strict=True)):
        if len(row) != count:
            raise ValueError(f"reference {index} has {count} words but {len(row)} tags")
    return np.array([tag for row in tags for tag in row] + [None], dtype=object)[:-1]


def _word_documents(documents: Sequence[Any], counts: Sequence[int]) -> Words:
    """Return the number of its document for each word of all references."""
    numbers = {document: number for number, document in enumerate(dict.fromkeys(documents))}
    return np.repeat([numbers[document] for document in documents], counts)


def _masks(pairs: Pairs, labels: Words) -> dict[str, Words]:
    """Return which words each row of the result is over."""
    cut = np.concatenate([np.asarray(row, bool) for row in pairs.cut])
    tags = sorted({tag for tag in labels if tag is not None})
    return {"all": ~cut, "cut": cut} | {f"tag {tag}": ~cut & (labels == tag) for tag in tags}


def _omissions(pairs: Pairs) -> dict[str, Words]:
    count = count_omissions(pairs.references, pairs.reconstructions)
    aligned = aligned_omissions(pairs.token_references, pairs.token_reconstructions)
    return {
        "omission_rate": np.concatenate(count),
        "omission_rate_aligned": np.concatenate(aligned),
    }


def _chances(pairs: Pairs, documents: Sequence[Any], draws: int, seed: int) -> dict[str, Words]:
    """Return each word's chance rates; NaN where no other document can be drawn."""
    count: list[Words] = [np.full(row.n_words, np.nan) for row in pairs.references]
    aligned = list(count)
    for group in sorted(set(pairs.groups)):
        rows = [index for index, own in enumerate(pairs.groups) if own == group]
        donors = derangements([documents[row] for row in rows], draws=draws, seed=seed)
        if donors is None:
            continue
        by_count = chance_rates(
            count_omissions,
            [pairs.references[row] for row in rows],
            [pairs.reconstructions[row] for row in rows],
            donors,
        )
        by_alignment = chance_rates(
            aligned_omissions,
            [pairs.token_references[row] for row in rows],
            [pairs.token_reconstructions[row] for row in rows],
            donors,
        )
        for row, count_row, aligned_row in zip(rows, by_count, by_alignment, strict=True):
            count[row], aligned[row] = count_row, aligned_row
    return {"chance_rate": np.concatenate(count), "chance_rate_aligned": np.concatenate(aligned)}


def _rows(
    outcomes: dict[str, Words], masks: dict[str, Words], documents: Words, seed: int
) -> dict[str, dict[str, Any]]:
    """Return one row of results for every mask over the words."""
    rows: dict[str, dict[str, Any]] = {}
    for name, mask in masks.items():
        rows[name] = {key: _mean(values[mask]) for key, values in outcomes.items()}
        rows[name] |= {"interval": None, "interval_aligned": None, "n_words": int(mask.sum())}
        rows[name]["n_documents"] = len(set(documents[mask].tolist()))
    wide = [name for name, row in rows.items() if row["n_documents"] >= MIN_DOCUMENTS]
    for suffix in ("", "_aligned"):
        values = outcomes[f"omission_rate{suffix}"]
        bounds = _intervals(values, [masks[name] for name in wide], documents, seed)
        for name, interval in zip(wide, bounds, strict=True):
            rows[name][f"interval{suffix}"] = interval
    return rows


def _mean(values: Words) -> float | None:
    """Return the mean; None of nothing, or where a value is missing."""
    mean = np.mean(values, dtype=np.float64) if len(values) else np.nan
    return None if np.isnan(mean) else float(mean)


def _intervals(
    values: Words, masks: Sequence[Words], documents: Words, seed: int
) -> list[list[float]]:
    """Return the symmetric studentised 95 % bounds, documents drawn with replacement.

    Rates that do not vary between documents get bounds without width. Source: Hall 1988.
    """
    if not masks:
        return []
    n = int(documents.max()) + 1
    sums, counts = (
        np.stack([np.bincount(documents, mask * weights, n) for mask in masks], axis=1)
        for weights in (values.astype(np.float64), np.ones(len(values)))
    )
    rate, error = _linearised(np.ones(n), sums, counts)
    generator = np.random.default_rng(seed)
    pivots = np.empty((RESAMPLES, len(masks)))
    for row in pivots:
        drawn = np.bincount(generator.integers(n, size=n), minlength=n)
        resampled, its_error = _linearised(drawn, sums, counts)
        with np.errstate(divide="ignore", invalid="ignore"):
            row[:] = np.abs(resampled - rate) / its_error
    reach, varies = np.zeros(len(masks)), error > 0
    finite = np.where(np.isfinite(pivots), pivots, np.nan)[:, varies]
    reach[varies] = np.nanquantile(finite, 0.95, axis=0) * error[varies]
    bounds = np.clip([rate - reach, rate + reach], 0, 1)
    return [[float(low), float(high)] for low, high in bounds.T]


def _linearised(weights: Words, sums: Words, counts: Words) -> tuple[Words, Words]:
    """Return each ratio of weighted sums over documents (G, C), and its standard error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        total = weights @ counts
        rate = (weights @ sums) / total
        variance = weights @ (sums - rate * counts) ** 2 * len(weights) / (len(weights) - 1)
        return rate, np.sqrt(variance) / total
