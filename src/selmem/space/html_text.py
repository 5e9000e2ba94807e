"""Text of users made safe and visible in HTML, and shares as the page writes them."""

import unicodedata
from html import escape

# numeric references, so that no template engine of the page takes them for its own
_TEMPLATE_MARKS = str.maketrans({mark: f"&#{ord(mark)};" for mark in "${}`"})
_KEPT_CONTROLS = "\n\t"
EN_DASH = "\N{EN DASH}"  # between numbers, and where there is no value


def text_html(text: str) -> str:
    r"""Return the text as HTML: escaped, with control characters as visible signs.

    >>> text_html('a < "b" & {c}')
    'a &lt; &quot;b&quot; &amp; &#123;c&#125;'
    >>> text_html("\x07\u202e")
    '<span class="sm-control">␇</span><span class="sm-control">U+202E</span>'
    """
    return "".join(
        _sign(character) if _is_hidden(character) else _escaped(character) for character in text
    )


def attribute(text: str) -> str:
    """Return the text for use between the double quotes of an attribute."""
    return "".join(
        f"U+{ord(character):04X}" if _is_hidden(character) else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return escape(character).translate(_TEMPLATE_MARKS)


def _is_hidden(character: str) -> bool:
    """Return whether the character is a control: shown raw, it does nothing or turns the page."""
    if character in _KEPT_CONTROLS:
        return False
    return unicodedata.category(character) in {"Cc", "Co", "Cs", "Zl", "Zp"} or (
        unicodedata.bidirectional(character)
        in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    )


def _sign(character: str) -> str:
    code = ord(character)
    picture = (
        chr(0x2400 + code) if code < 0x20 else chr(0x2421) if code == 0x7F else f"U+{code:04X}"
    )
    return f'<span class="sm-control">{picture}</span>'


def share_text(value: float | None) -> str:
    """Return a fraction in percent, or a dash where there is none.

    >>> share_text(0.456), share_text(None)
    ('46%', '–')
    """
    return EN_DASH if value is None else f"{value:.0%}"
