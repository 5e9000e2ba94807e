"""A reading as panels of HTML."""

from collections.abc import Iterator
from dataclasses import dataclass

from selmem.space.charts import Bar, Series, bar_table, caption_html, curve_chart
from selmem.space.groups import SCHEMES, Group, group_words, summary_sentences
from selmem.space.html_text import EN_DASH, share_text, text_html
from selmem.space.marked_text import marked_reconstruction, marked_text, null_guesses
from selmem.space.published import Published, study_rates
from selmem.space.records import Reading, WordRecord


@dataclass(frozen=True, kw_only=True)
class Shown:
    """HTML of the panels, in the order of the page."""

    summary: str
    text: str
    reconstruction: str
    groups: str
    lengths: str
    null_guesses: str
    words: str

    def values(self) -> tuple[str, ...]:
        """Return the panels in order."""
        return tuple(vars(self).values())


EMPTY = Shown(
    summary="",
    text="",
    reconstruction="",
    null_guesses="",
    groups="",
    lengths="",
    words="",
)


def show(reading: Reading, published: Published) -> Shown:
    """Return all panels of a reading.

    Args:
        reading: of one text.
        published: tables, for the published rates beside the text's own.
    """
    return Shown(
        summary=_summary(reading),
        text=marked_text(reading),
        reconstruction=marked_reconstruction(reading),
        null_guesses=null_guesses(reading),
        groups=f'<div class="sm-columns">{"".join(_group_tables(reading, published))}</div>',
        lengths=_lengths(reading),
        words=_word_table(reading),
    )


def _summary(reading: Reading) -> str:
    note = f'<p class="sm-note">{text_html(reading.note)}</p>' if reading.note else ""
    words = reading.whole_words
    rules = ", ".join(
        f"{rate:.0%} {name}"
        for name, rate in (
            ("in their order", _mean([word.omitted_aligned for word in words])),
            ("anywhere", _mean([word.omitted_count for word in words])),
            (
                "when guessed from the true text before",
                _mean([word.omitted_forced for word in words]),
            ),
        )
        if rate is not None
    )
    details = f"{text_html(reading.model)}, {reading.n_tokens} tokens."
    if rules:
        details += f" Share of words not recovered: {rules}."
    return (
        f'<p class="sm-headline">{text_html(summary_sentences(reading))}</p>'
        f'<p class="sm-details">{details}</p>{note}'
    )


def _mean(values: list[bool] | list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _group_tables(reading: Reading, published: Published) -> Iterator[str]:
    for scheme, title in SCHEMES.items():
        groups = group_words(reading, scheme)
        if not groups:
            continue
        study = study_rates(published, reading.model, scheme=scheme, n_tokens=reading.n_tokens)
        beside = ["published"] if study else []
        bars = [_bar(group, study.by_tag.get(group.tag) if study else None) for group in groups]
        caption = f"Diamond: the published rate at {study.length} tokens." if study else ""
        headings = [title, "not recovered", "words", *beside]
        yield f"<div>{bar_table(bars, headings, caption=caption)}</div>"
    if not any(word.pos for word in reading.words) and reading.words:
        yield (
            '<p class="sm-nothing">Parts of speech and names need a tagger, which is not '
            "installed here.</p>"
        )


def _bar(group: Group, beside: float | None) -> Bar:
    return Bar(
        label=group.label,
        value=group.omission_rate,
        count=f"{group.n_omitted} of {group.n_words}",
        beside=beside,
    )


def _lengths(reading: Reading) -> str:
    retained = [(point.tokens, point.retained) for point in reading.lengths]
    fraction = [(point.tokens, point.recovered_fraction) for point in reading.lengths]
    series = [
        Series(name=name, points=[(x, y) for x, y in points if y is not None])
        for name, points in (("words written back", retained), ("bits recovered", fraction))
    ]
    series = [one for one in series if one.points]
    if not series or len(reading.lengths) < 2:
        return '<p class="sm-nothing">The text is too short for a curve.</p>'
    chart = curve_chart(
        series,
        title="The same text, cut after its first tokens",
        x_label="tokens read (each length has a state of its own)",
        x_ticks=[(point.tokens, str(point.tokens)) for point in reading.lengths],
        log2=True,
    )
    rows = "".join(
        f"<tr><th scope='row'>{point.tokens}</th><td>{point.n_words}</td>"
        f"<td>{share_text(point.retained)}</td><td>{share_text(point.recovered_fraction)}</td></tr>"
        for point in reading.lengths
    )
    return (
        f"{chart}<details><summary>As a table</summary><table class='sm-plain'><thead><tr>"
        "<th scope='col'>tokens</th><th scope='col'>whole words</th>"
        "<th scope='col'>words written back</th><th scope='col'>bits recovered</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></details>"
    )


def _word_table(reading: Reading) -> str:
    columns = (
        "word",
        "part of speech",
        "name",
        "kind",
        "written back",
        "bits without state",
        "recovered bits",
        "guess with state (how sure)",
        "guess without state",
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    rows = "".join(_word_row(reading.text[word.start : word.end], word) for word in reading.words)
    return (
        f"{caption_html('Guesses are given the true text before the word.')}"
        '<div class="sm-scroll"><table class="sm-plain sm-wide">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _word_row(text: str, word: WordRecord) -> str:
    back = "cut" if word.cut else "no" if word.omitted_aligned else "yes"
    null_guess = EN_DASH if word.null_guess is None else word.null_guess.strip() or "␣"
    cells = (
        word.pos or EN_DASH,
        EN_DASH if word.entity in {None, "O"} else str(word.entity),
        word.kind,
        back,
        _number(word.null_bits),
        _number(word.recovered_bits),
        f"{word.guess.strip() or '␣'} ({word.confidence:.0%})",
        null_guess,
    )
    return (
        f'<tr><th scope="row">{text_html(text)}</th>'
        + "".join(f"<td>{text_html(cell)}</td>" for cell in cells)
        + "</tr>"
    )


def _number(value: float | None) -> str:
    return EN_DASH if value is None else f"{value:.1f}".replace("-", "\N{MINUS SIGN}")
