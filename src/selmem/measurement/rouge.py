"""ROUGE as `rouge_score` defines it, with its longest common subsequence in a row of bits."""

from collections.abc import Sequence

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import fmeasure
from rouge_score.tokenizers import DefaultTokenizer

_TOKENIZER = DefaultTokenizer(use_stemmer=False)
_SCORER = RougeScorer(["rouge1", "rouge2"], tokenizer=_TOKENIZER)


def rouge_f1(reference: str, other: str) -> tuple[float, float, float]:
    """Return the F1 of rouge1, rouge2 and rougeL; they see letters a-z and digits only.

    >>> rouge_f1("a b c d", "b a c d")
    (1.0, 0.3333333333333333, 0.75)
    """
    ngrams = _SCORER.score(reference, other)
    words, others = (_TOKENIZER.tokenize(text) for text in (reference, other))
    longest = 0.0
    if words and others:
        n_common = common_length(words, others)
        longest = fmeasure(n_common / len(others), n_common / len(words))
    return ngrams["rouge1"].fmeasure, ngrams["rouge2"].fmeasure, longest


def common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest common subsequence.

    Bit i of `row` is 0 where the table of the textbook grows from first[:i] to first[:i + 1].

    Source: Hyyrö 2004, "Bit-parallel LCS-length computation revisited".
    """
    places: dict[str, int] = {}
    for i, item in enumerate(first):
        places[item] = places.get(item, 0) | 1 << i
    every = (1 << len(first)) - 1
    row = every
    for item in second:
        matched = row & places.get(item, 0)
        row = ((row + matched) | (row - matched)) & every
    return len(first) - row.bit_count()
