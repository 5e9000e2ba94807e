from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selmem.corpora import read_documents
from selmem.errors import InputError
from selmem.readers.files import read_lines
from selmem.tags import (
    KINDS,
    PENN,
    POS_CLASSES,
    SCHEMES,
    UNIVERSAL,
    PosMap,
    coarse_entity,
    entity_type,
    kinds,
    pos_class,
    token_kind,
)

# the map of the paper's published code, copied by hand
PAPER = {
    "PUNCT": ['"', "''", "``", "(", ")", ",", ".", ":"],
    "SYM": ["#", "$", "SYM"],
    "CONJ": ["CC"],
    "NUM": ["CD", "LS"],
    "DET": ["DT", "PDT", "WDT"],
    "ADV": ["EX", "RB", "RBR", "RBS", "WRB"],
    "X": ["FW"],
    "ADP": ["IN", "TO"],
    "ADJ": ["JJ", "JJR", "JJS"],
    "VERB": ["MD", "VB", "VBD", "VBG", "VBN", "VBP", "VBZ"],
    "NOUN": ["NN", "NNS", "NNP", "NNPS", "NN|SYM"],
    "PRT": ["POS", "RP"],
    "PRON": ["PRP", "PRP$", "WP", "WP$"],
    "INTJ": ["UH"],
}


def test_penn_tags_have_the_papers_classes():
    assert {pos_class(tag, "penn"): 1 for tag in PENN}.keys() == set(POS_CLASSES) == PAPER.keys()
    for name, tags in PAPER.items():
        assert {pos_class(tag, "penn") for tag in tags} == {name}


def test_schemes_agree_wherever_they_share_a_tag():
    for one, other in combinations(("penn", "universal", "classes"), 2):
        shared = SCHEMES[one].keys() & SCHEMES[other].keys()
        assert all(SCHEMES[one][tag] == SCHEMES[other][tag] for tag in shared)


def test_every_universal_tag_has_a_class():
    assert len(UNIVERSAL) == 17
    assert set(UNIVERSAL.values()) <= set(POS_CLASSES)


def test_an_unknown_tag_is_an_error_that_lists_the_known_ones():
    with pytest.raises(InputError, match=r"tag 'QQ' is not in the scheme 'universal'; .*ADJ ADP"):
        pos_class("QQ", "universal")
    assert pos_class("QQ", unknown="X") == "X"


def test_a_map_counts_the_tags_it_does_not_know():
    to_class = PosMap("X")
    assert [to_class(tag) for tag in ("NN", "QQ", "QQ")] == ["NOUN", "X", "X"]
    assert to_class.unknown_counts == {"QQ": 2}
    with pytest.raises(InputError, match="'noun' is no class"):
        PosMap("noun")


@pytest.mark.parametrize(
    ("tag", "expected"),
    [("I-PER", "PER"), ("B-LOC", "LOC"), ("O", "O"), ("S-ORG", "ORG"), ("WORK_OF_ART",) * 2],
)
def test_prefixes_of_entity_tags_are_dropped(tag, expected):
    assert entity_type(tag) == expected


def test_an_unknown_entity_type_has_no_coarse_one():
    assert [coarse_entity(name) for name in ("PERSON", "FAC", "LAW", "MONEY")] == [
        "PER", "LOC", "MISC", "O",
    ]  # fmt: skip
    with pytest.raises(InputError, match="'GENE' has no CoNLL-2003 type; known: PER"):
        coarse_entity("GENE")


CASES = {
    "number": "0 7 12.5 1,000 .5 -3 +4.0 1e-5 6.02E+23 0xFF 0b101 1996-12-06 2-1 12:30 3/4 "
    "50% $5 £3.50 1st 22nd 30° ½ ²",
    "variable": "x y_1 x_{ij} f' z2 _X θ π",
    "operator": "+ = == != <= += ** // && || << -> => := ≤ ≠ ∈ ± ÷ ∑ √ → ^ | * < >",
    "identifier": "foo_bar fooBar FooBar __init__ MAX_LEN os.path np.zeros print() @property x_max",
    "command": r"\alpha \frac \\ \{ \begin*",
    "address": "https://example.org/a?b www.x.de me@x.org example.com",
    "mixed": "F-16 1990s B2B COVID-19 win32 10km",
    "punctuation": ". , ; : ? ! ( ) [ ] { } ' \" … — « - -- ... ``",
    "symbol": "$ % # @ & ~ € © 😀",
    "word": "the I a A C Don don't n't 's U.S. Mr. McDonald MacArthur AL-AIN well-known naïve Ώδε "
    "O'Brien 'em and/or SOCCER 北京",
}


@pytest.mark.parametrize(("kind", "word"), [(k, w) for k, ws in CASES.items() for w in ws.split()])
def test_kind_of_a_word_by_its_surface(kind, word):
    assert token_kind(word) == kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = b + C", "variable operator variable operator variable"),
        ("A - b", "variable operator variable"),
        ("3 - A", "number operator variable"),
        ("A man - a plan", "word word punctuation word word"),
        ("$ B $", "symbol variable symbol"),
        ("I saw Group C .", "word word word word punctuation"),
    ],
)
def test_ambiguous_words_follow_their_neighbours(text, expected):
    assert kinds(text.split()) == expected.split()


@given(st.lists(st.text(st.characters(exclude_categories=["Zs", "Cc", "Cs"]), min_size=1)))
def test_every_word_has_one_of_the_kinds(words):
    assert set(kinds(words)) <= set(KINDS)


def test_kinds_agree_with_gold_numbers_of_conll(shared_data):
    documents = read_documents(str(shared_data("conll2003/eng.testb")))
    pairs = Counter((w.pos == "NUM", w.kind == "number") for d in documents for w in d.words)
    assert pairs[True, True] / (pairs[True, True] + pairs[False, True]) > 0.95
    assert pairs[True, True] / (pairs[True, True] + pairs[True, False]) > 0.9


@pytest.mark.parametrize("path", ["gum/gum_dev.conllu", "ud_ewt/en_ewt-ud-dev.conllu"])
def test_penn_and_universal_classes_of_real_words_mostly_agree(shared_data, path):
    pairs = Counter()
    for _, line in read_lines(shared_data(path)):
        columns = line.split("\t")
        if columns[0].isdecimal() and columns[4] in PENN:
            pairs[pos_class(columns[3]), pos_class(columns[4])] += 1
    agreed = sum(count for (one, other), count in pairs.items() if one == other)
    assert agreed / pairs.total() > 0.93
