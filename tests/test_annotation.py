import builtins
import sys

import pytest

from selmem.annotation import MODELS, _pieces, annotate, load_spacy, split_documents
from selmem.documents import Document, Word
from selmem.errors import InputError

TEXT = "Angela Merkel didn't visit  Paris in 2019.\nShe flew to Rome."


def document(text, doc_id="d", words=()):
    return Document(doc_id=doc_id, source="s", text=text, words=words)


@pytest.fixture(scope="module")
def spacy_model():
    pytest.importorskip("spacy")
    try:
        return load_spacy()
    except InputError:
        pytest.skip(f"none of {MODELS} is installed")


@pytest.mark.usefixtures("spacy_model")
def test_spacy_words_are_spans_with_classes_entities_and_kinds():
    (found,) = annotate([document(TEXT)])
    words = {TEXT[word.start : word.end]: word for word in found.words}
    assert list(words)[:5] == ["Angela", "Merkel", "did", "n't", "visit"]
    assert (words["Merkel"].pos, words["Merkel"].entity) == ("NOUN", "PERSON")
    assert (words["Rome"].entity, words["2019"].pos, words["2019"].kind) == ("GPE", "NUM", "number")
    assert words["visit"].entity == "O"
    assert "".join(TEXT[word.start : word.end] for word in found.words) == "".join(TEXT.split())


@pytest.mark.usefixtures("spacy_model")
def test_annotated_documents_pass_as_they_are_and_order_is_kept():
    word = Word(start=0, end=3, kind="word")
    given = [document(TEXT, doc_id=str(n), words=(word,) if n % 3 == 0 else ()) for n in range(70)]
    found = list(annotate(given))
    assert [d.doc_id for d in found] == [d.doc_id for d in given]
    assert all((d.words == (word,)) == (n % 3 == 0) for n, d in enumerate(found))


@pytest.mark.usefixtures("spacy_model")
def test_words_of_a_long_text_stand_where_they_do_in_a_short_one(monkeypatch):
    monkeypatch.setattr("selmem.annotation._MAX_PIECE", 300)
    text = TEXT + "\n"
    short = next(annotate([document(text)])).words
    long = next(annotate([document(text * 20)])).words  # several pieces
    places = {(word.start % len(text), word.end - word.start) for word in long}
    assert places == {(word.start, word.end - word.start) for word in short}
    assert len(long) == 20 * len(short)


@pytest.mark.usefixtures("spacy_model")
def test_words_of_a_span_are_those_of_the_whole_text_and_far_ones_are_not_looked_for(monkeypatch):
    monkeypatch.setattr("selmem.annotation._MAX_PIECE", 300)
    given = [document((TEXT + "\n") * 20), document(TEXT, doc_id="e")]
    whole = list(annotate(given))
    spans = [[(700, 750), (760, 770)], [(0, 3)]]
    some = list(annotate(given, spans=spans))
    for start, end in spans[0]:
        assert within(some[0], start, end) == within(whole[0], start, end) != []
    assert len(some[0].words) < len(whole[0].words) / 2
    assert some[1] == whole[1]


def within(found, start, end):
    return [word for word in found.words if word.start < end and start < word.end]


def test_a_sign_that_the_tagger_takes_for_white_space_is_a_word_of_no_class():
    spacy = pytest.importorskip("spacy")

    class EverythingIsSpace:
        def pipe(self, texts, batch_size):
            for doc in spacy.blank("en").pipe(texts, batch_size=batch_size):
                for token in doc:
                    token.tag_ = "_SP"
                yield doc

    (found,) = annotate([document("\\x  y")], model=EverythingIsSpace())
    assert [(word.start, word.end, word.pos) for word in found.words] == [(0, 2, "X"), (4, 5, "X")]


def test_every_tag_of_the_model_has_a_class(spacy_model):
    from selmem.tags import PENN

    assert set(spacy_model.get_pipe("tagger").labels) - {"_SP"} <= PENN.keys()


def test_pieces_join_to_the_text_and_break_at_white_space():
    text = ("word " * 9_000) + "x" * 45_000 + "\nend"
    pieces = list(_pieces(text))
    assert "".join(piece for _, piece in pieces) == text
    assert all(text[start:].startswith(piece) for start, piece in pieces)
    assert pieces[0][1].endswith("word ")
    assert max(len(piece) for _, piece in pieces) <= 20_000


def test_a_model_that_is_not_installed_names_the_commands():
    pytest.importorskip("spacy")
    with pytest.raises(InputError, match=r"absent_model is installed; run `pip install"):
        list(annotate([document(TEXT)], model="absent_model"))


def test_without_spacy_the_error_names_the_commands(monkeypatch):
    real_import = builtins.__import__

    def without_spacy(name, *args, **kwargs):
        if name == "spacy":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "spacy", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_spacy)
    with pytest.raises(InputError, match=r"spaCy is not installed; run .*download en_core_web_sm"):
        list(annotate([document(TEXT)]))


def test_annotated_documents_need_no_spacy(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    given = document(TEXT, words=(Word(start=0, end=6, kind="word"),))
    assert list(annotate([given])) == [given]


def test_split_documents_have_kinds_alone():
    given = document("x_1 += 3", words=(Word(start=0, end=3, kind="word"),))
    split, passed = split_documents([document("x_1 += 3"), given])
    assert [(w.start, w.end, w.kind) for w in split.words] == [
        (0, 3, "variable"),
        (4, 6, "operator"),
        (7, 8, "number"),
    ]
    assert {(word.pos, word.entity) for word in split.words} == {(None, None)}
    assert passed == given
