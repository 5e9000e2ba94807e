"""The text and its reconstruction as HTML, each word marked with what became of it.

Every mark has a sign beside its colour: brackets and a line through, a number, or a tick.
"""

from collections.abc import Callable, Iterable

from selmem.space.html_text import EN_DASH, attribute, text_html
from selmem.space.records import Reading, WordRecord

VIEWS = ("words", "bits", "sure")
# least recovered bits of each shade above the first; the first holds what the state did not help
_SHADES = (0.5, 2.0, 4.0, 8.0, 16.0)


def marked_text(reading: Reading) -> str:
    """Return the text in all three views; the page shows the one that is chosen."""
    markers = {"words": _written_back, "bits": _bits, "sure": _sureness}
    return "".join(
        f'<div class="sm-view sm-view-{view}">{_legend(view, reading)}'
        f'<p class="sm-text" dir="auto">{_joined(reading, markers[view])}</p></div>'
        for view in VIEWS
    )


def marked_reconstruction(reading: Reading) -> str:
    """Return what the probe wrote; words that stand for none of the text are marked."""
    pieces, behind = [], 0
    for piece in reading.written:
        pieces.append(text_html(reading.reconstruction[behind : piece.start]))
        written = text_html(reading.reconstruction[piece.start : piece.end])
        pieces.append(
            f'<span class="sm-kept">{written}</span>'
            if piece.matched
            else f'<ins class="sm-added" title="not in the text at this place">{written}</ins>'
        )
        behind = piece.end
    pieces.append(text_html(reading.reconstruction[behind:]))
    written_text = "".join(pieces) or '<span class="sm-nothing">(nothing)</span>'
    legend = _keys(
        '<span class="sm-kept">as in the text</span>',
        '<ins class="sm-added">not in the text here</ins>',
    )
    return f'{legend}<p class="sm-text" dir="auto">{written_text}</p>'


def null_guesses(reading: Reading) -> str:
    """Return the text with, under each word, what the null probe guesses from the text before."""
    if any(word.null_guess is None for word in reading.words):
        return '<p class="sm-nothing">There is no null probe for this model.</p>'
    legend = _keys(
        '<span class="sm-gloss sm-right">word<small>✓</small></span> guessed right',
        '<span class="sm-gloss sm-wrong">word<small>another</small></span> guessed wrong, '
        "and what it guessed (■ that the text ends, ␣ white space)",
    )
    return f'{legend}<p class="sm-text sm-tall" dir="auto">{_joined(reading, _null_guess)}</p>'


def _joined(reading: Reading, mark: Callable[[WordRecord, str], str]) -> str:
    pieces, behind = [], 0
    for word in reading.words:
        pieces.append(text_html(reading.text[behind : word.start]))
        pieces.append(mark(word, text_html(reading.text[word.start : word.end])))
        behind = word.end
    return "".join([*pieces, text_html(reading.text[behind:])])


def _written_back(word: WordRecord, shown: str) -> str:
    if word.cut:
        return f'<span class="sm-cut" title="cut by the end of what was read">{shown}</span>'
    if word.omitted_aligned:
        return f'<del class="sm-omitted" title="not recovered by this probe">{shown}</del>'
    return f'<span class="sm-kept">{shown}</span>'


def _bits(word: WordRecord, shown: str) -> str:
    bits = word.recovered_bits
    if bits is None:
        return shown
    shade = sum(bits >= least for least in _SHADES) if bits > -_SHADES[0] else "minus"
    number = f"{bits:.0f}".replace("-0", "0").replace("-", "\N{MINUS SIGN}")
    return _glossed(f"sm-shade-{shade}", shown, number, f"{bits:.1f} bits from the state")


def _sureness(word: WordRecord, shown: str) -> str:
    right = "wrong" if word.omitted_forced else "right"
    sure = f"{word.confidence:.0%}"
    title = f"guessed {word.guess.strip() or 'white space'!r}, {sure} sure"
    return _glossed(f"sm-{right}", shown, f"{'✗' if word.omitted_forced else '✓'}{sure}", title)


def _null_guess(word: WordRecord, shown: str) -> str:
    guess = (word.null_guess or "").strip() or "␣"
    if word.null_right:
        return _glossed("sm-right", shown, "✓", "guessed right without the state")
    return _glossed("sm-wrong", shown, guess, "guessed wrong without the state")


def _glossed(name: str, shown: str, below: str, title: str) -> str:
    return (
        f'<span class="sm-gloss {name}" title="{attribute(title)}">{shown}'
        f"<small>{text_html(below)}</small></span>"
    )


def _legend(view: str, reading: Reading) -> str:
    if view == "words":
        return _keys(
            '<span class="sm-kept">written back</span>',
            '<del class="sm-omitted">not recovered by this probe</del>',
        )
    if view == "sure":
        return _keys(
            '<span class="sm-gloss sm-right">word<small>✓90%</small></span> guessed right, '
            "90 % sure",
            '<span class="sm-gloss sm-wrong">word<small>✗40%</small></span> guessed wrong, '
            "40 % sure of another word",
        )
    if reading.null_bits is None:
        return '<p class="sm-nothing">Without a null probe there are no recovered bits.</p>'
    shades = (
        ("minus", "under 0"),
        (0, "0"),
        (1, f"½{EN_DASH}2"),
        (2, f"2{EN_DASH}4"),
        (3, f"4{EN_DASH}8"),
        (4, f"8{EN_DASH}16"),
        (5, "16+"),
    )
    keys = (f'<span class="sm-swatch sm-shade-{shade}">{text}</span>' for shade, text in shades)
    return _keys("bits of the word that the state saves:", *keys)


def _keys(*keys: str) -> str:
    return f'<p class="sm-legend">{_items(keys)}</p>'


def _items(keys: Iterable[str]) -> str:
    return " ".join(f'<span class="sm-key">{key}</span>' for key in keys)
