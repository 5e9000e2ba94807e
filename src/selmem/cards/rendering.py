"""Templates to text: every name that a template asks for must be there, every number finite."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from selmem.errors import InputError


def render_card(name: str, templates: Path, context: Mapping[str, Any]) -> str:
    """Return the card made from `templates`/NAME.md.jinja.

    Args:
        name: of the template.
        templates: the checkout's folder `hub_cards`.
        context: what the template may use.

    Raises:
        InputError: no such template, or a value that is absent or not finite; it names the value.
    """
    _require_values(context, f"the {name} card")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(percent=percent, grouped=grouped, file_size=file_size)
    try:
        return environment.get_template(f"{name}.md.jinja").render(**context)
    except jinja2.TemplateNotFound as error:
        raise InputError(
            f"{templates} has no card template {name}.md.jinja; `selmem publish` runs in a "
            "checkout, or with --templates DIR"
        ) from error
    except jinja2.UndefinedError as error:
        raise InputError(f"the {name} card lacks a value: {error.message}") from error


def percent(rate: float) -> str:
    """Return a rate as percent with one decimal.

    >>> percent(0.12345)
    '12.3 %'
    """
    return f"{100 * rate:.1f} %"


def grouped(count: int) -> str:
    """Return a count with a comma at every thousand.

    >>> grouped(1234567)
    '1,234,567'
    """
    return f"{count:,}"


def file_size(size: int) -> str:
    """Return bytes as kilobytes, or as megabytes from one on.

    >>> file_size(31_098), file_size(9_234_567)
    ('32 kB', '9.2 MB')
    """
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{math.ceil(size / 1e3)} kB"


def _require_values(value: Any, name: str) -> None:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{name} lacks a number: {value!r} where one belongs; measure it first")
    if isinstance(value, Mapping):
        for key, entry in value.items():
            _require_values(entry, f"{name}: {key}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, entry in enumerate(value):
            _require_values(entry, f"{name}, row {number + 1}")
