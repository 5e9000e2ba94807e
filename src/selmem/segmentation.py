r"""Words of untagged text by a regular expression, for counting and where no tagger is wanted.

Contractions are split as in the Penn Treebank ("do" "n't", "she" "'s"), so that words are the same
units as in annotated corpora. No word contains a space.
"""

import re
from collections.abc import Iterator

_APOSTROPHE = "['\N{RIGHT SINGLE QUOTATION MARK}]"
_LETTER = "[\\w\u0300-\u036f]"  # letters, digits, underscore and the marks put on letters
_CLITIC = rf"{_APOSTROPHE}(?:s|re|ve|ll|d|m|S|RE|VE|LL|D|M)(?!{_LETTER})"
_NOT = rf"[nN]{_APOSTROPHE}[tT](?!{_LETTER})"

_WORD = re.compile(
    rf"""
      [A-Za-z]+://[^\s<>"]*[\w/]                              # address
    | \\[A-Za-z]+                                             # LaTeX command
    | 0[xX][0-9a-fA-F]+(?!{_LETTER})
    | \d+(?:[.,]\d+)*(?:[eE][-+]?\d+)?(?!{_LETTER})           # 1,234.5e-6
    | {_LETTER}+?(?={_NOT}) | {_NOT} | {_CLITIC}
    | {_LETTER}+(?:{_APOSTROPHE}{_LETTER}+)*?(?={_CLITIC}|(?!{_APOSTROPHE}{_LETTER}))
    | (?:\*\*|//|<<|>>|[-+*/%&|^<>=!:])= | -> | => | && | \|\| | << | >> | //
    | ([-.=*\#~_+"`])\1+                                      # runs: ... --- ==== **
    | \S
    """,
    re.VERBOSE,
)


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the first and one past the last character of every word.

    >>> text = "She can't sum 1,234.5+x_1 at O'Neil's..."
    >>> [text[start:end] for start, end in word_spans(text)]
    ['She', 'ca', "n't", 'sum', '1,234.5', '+', 'x_1', 'at', "O'Neil", "'s", '...']
    """
    return (match.span() for match in _WORD.finditer(text))


def split_words(text: str) -> list[str]:
    r"""Return the words of a text.

    >>> split_words("if a!=b: c += 2**k  # \\alpha, 0x1F, 90s")
    ['if', 'a', '!=', 'b', ':', 'c', '+=', '2', '**', 'k', '#', '\\alpha', ',', '0x1F', ',', '90s']
    """
    return [match.group() for match in _WORD.finditer(text)]
