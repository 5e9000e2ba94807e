from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selmem.segmentation import split_words, word_spans


@given(st.text())
def test_words_cover_all_but_white_space_in_order(text):
    spans = list(word_spans(text))
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())


@given(st.text())
def test_no_word_reaches_across_white_space(text):
    assert split_words(text) == [word for part in text.split() for word in split_words(part)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I'd've gone, she'll say 'yes'", "I 'd 've gone , she 'll say ' yes '"),
        ("CAN'T won\u2019t cannot", "CA N'T wo n\u2019t cannot"),
        ("rock'n'roll O'Brien's", "rock'n'roll O'Brien 's"),
        ("3.5e-7*x**2>=y_1", "3.5e-7 * x ** 2 >= y_1"),
        ("1,234.5. 10km 0xFFg", "1,234.5 . 10km 0xFFg"),
        (
            "see https://a.org/b?c=1, or \\frac{a}{b}",
            "see https://a.org/b?c=1 , or \\frac { a } { b }",
        ),
        ("f(x)->None: '''a'''", "f ( x ) -> None : ' ' ' a ' ' '"),
        ("cafe\u0301 e\u0301te\u0301", "cafe\u0301 e\u0301te\u0301"),
    ],
)
def test_words_of_prose_maths_and_code(text, words):
    assert split_words(text) == words.split()
