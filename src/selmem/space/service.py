"""What the widgets of the page and its API call; every refusal is an InputError with a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from selmem.errors import InputError
from selmem.space.examples import Example
from selmem.space.explore import RULES, Panels, Selection, nearest_selection, panels, tag_rows
from selmem.space.groups import SCHEMES
from selmem.space.models import ModelStore
from selmem.space.published import POOLED, Published
from selmem.space.reading import Annotator, read_text
from selmem.space.shown import Shown, show


@dataclass(frozen=True, kw_only=True)
class Service:
    """All that the page can do; holds models and tables, nothing of any user.

    Attributes:
        store: the models that are offered.
        published: the tables to explore.
        examples: readings made beforehand.
        annotator: finds the words of a text.
    """

    store: ModelStore
    published: Published
    examples: Sequence[Example] = ()
    annotator: Annotator = field(default_factory=Annotator)

    def reconstruct(self, text: str, model: str) -> dict[str, Any]:
        """Return what a probe writes back of a text, and what became of every word.

        Args:
            text: its beginning is read where it is too long; the field `note` then says so.
            model: one of `models`.

        Returns:
            The fields of `records.Reading`.
        """
        return read_text(self.store.load(model), text, self.annotator).to_dict()

    def show_text(self, text: str, model: str) -> Shown:
        """Return the panels of a text."""
        reading = read_text(self.store.load(model), text, self.annotator)
        return show(reading, self.published)

    def show_example(self, index: int) -> tuple[str, Shown]:
        """Return an example's text and panels; no model is needed."""
        reading = self.examples[index].reading
        return reading.text, show(reading, self.published)

    def models(self) -> list[str]:
        """Return the names of the models that are offered, the default first."""
        return self.store.names

    def explore(self, selection: Selection) -> tuple[Selection, Panels]:
        """Return the selection that the tables allow, and its panels."""
        _require(selection)
        found = nearest_selection(self.published, selection)
        return found, panels(self.published, found)

    def omission(
        self, model: str, source: str, length: int, scheme: str = "pos", rule: str = "aligned"
    ) -> list[dict[str, Any]]:
        """Return rows of the published table `omission`.

        Args:
            model: probe as the tables name it.
            source: of the texts; "all sources" for all together.
            length: of the texts, in tokens; 0 for whole texts.
            scheme: "pos", "entity" or "kind".
            rule: "aligned", "count" or "forced".
        """
        sources = self.published.options("source", probe=model)
        if source == POOLED and len(sources) == 1:
            source = sources[0]
        selection = Selection(model=model, source=source, length=length, scheme=scheme, rule=rule)
        _require(selection)
        found = nearest_selection(self.published, selection)
        if (found.source, found.length) != (source, length):
            raise InputError(
                f"{model} has no published rows for {source[:100]!r} at {length} tokens; "
                f"its sources: {', '.join(sources)}; lengths of {found.source}: "
                + ", ".join(map(str, self.published.options("length", source=found.source)))
            )
        return tag_rows(self.published, selection)


def _require(selection: Selection) -> None:
    for given, allowed in ((selection.scheme, SCHEMES), (selection.rule, RULES)):
        if given not in allowed:
            raise InputError(f"{given[:100]!r} is not one of {', '.join(allowed)}")
