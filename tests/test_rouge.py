"""ROUGE is that of `rouge_score`, which is slow on long texts."""

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from selmem.measurement.rouge import common_length, rouge_f1

VARIANTS = ["rouge1", "rouge2", "rougeL"]


@pytest.mark.parametrize("seed", range(60))
def test_scores_are_those_of_the_library(seed):
    draw = random.Random(seed)
    words = ["The", "cat", "é", "x_1", "don't", "3.5", "...", "\n", "sat"]
    texts = [" ".join(draw.choices(words, k=draw.randrange(0, 90))) for _ in range(2)]
    scores = RougeScorer(VARIANTS).score(*texts)
    assert rouge_f1(*texts) == tuple(scores[name].fmeasure for name in VARIANTS)


@pytest.mark.parametrize("texts", [("", ""), ("a b", ""), ("", "a"), ("!", "a")])
def test_nothing_in_common_is_0(texts):
    assert rouge_f1(*texts) == (0, 0, 0)


def test_the_longest_common_subsequence_may_leave_gaps():
    assert common_length(list("xaxbxc"), list("abyyc")) == 3
    assert common_length(list("abc"), list("cba")) == 1
