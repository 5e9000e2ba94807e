"""The page: widgets only. What they show and do is in `selmem.space`, which is tested apart."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
import torch

from selmem.errors import InputError
from selmem.space.examples import read_examples
from selmem.space.explore import NO_TABLES, RULES, Selection, first_selection, panels
from selmem.space.groups import SCHEMES
from selmem.space.models import ModelStore, bundled_choice, read_choices
from selmem.space.published import Published
from selmem.space.service import Service
from selmem.space.shown import EMPTY
from selmem.space.verdicts import length_label

HERE = Path(__file__).parent
# beside the app on the Hub, in the checkout otherwise
TABLES = (HERE / "tables", HERE.parents[1] / "hub_cards" / "tables")
TITLE = "What a Mamba can write back"
INTRO = f"""# {TITLE}

A language model of the Mamba kind reads a text into a *state* of fixed size. A second model, the
*probe*, then sees this state and nothing else, and writes the text back. What it cannot write back,
the state did not keep in a form that this probe can use."""
VIEWS = [
    ("written back or not", "words"),
    ("bits that the state saves", "bits"),
    ("how sure the probe was", "sure"),
]
SHOW_VIEW = "view => { document.getElementById('sm-try').dataset.view = view; }"
WAITING_USERS = 20
MODEL_QUEUE: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
INTERNAL: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal"}

LAUNCH: dict[str, Any] = {
    "theme": gr.themes.Default(
        primary_hue="blue",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ),
    "head": f"<style>{(HERE / 'style.css').read_text(encoding='utf-8')}</style>",
    "footer_links": ["api"],
    "run_history": False,
    "ssr_mode": False,
}


def make_service() -> Service:
    """Return the bundled models, those of models.json, and the tables and examples at hand."""
    folder = next((path for path in TABLES if path.is_dir()), None)
    return Service(
        store=ModelStore([bundled_choice(), *read_choices(HERE / "models.json")]),
        published=Published(folder),
        examples=read_examples(HERE / "examples.json"),
    )


def build(service: Service) -> gr.Blocks:
    """Return the page with its API; one core computes, so that the other can serve pages."""
    torch.set_num_threads(1)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(INTRO)
        with gr.Tab("Try it"), gr.Column(elem_id="sm-try"):
            _try_it(service)
        with gr.Tab("Explore"):
            _explore(service)
        with gr.Tab("About"):
            gr.Markdown((HERE / "about.md").read_text(encoding="utf-8"), elem_id="sm-about")
        gr.api(spoken(service.reconstruct), api_name="reconstruct", **MODEL_QUEUE)
        gr.api(spoken(service.models), api_name="models", queue=False)
        gr.api(spoken(service.omission), api_name="omission", queue=False)
    return page.queue(max_size=WAITING_USERS)


def spoken(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with refusals as a sentence on the page, not as an exception."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except InputError as error:
            raise gr.Error(str(error), title="Not possible", print_exception=False) from None

    return run


def html(value: str, **options: Any) -> gr.HTML:
    """Return a panel that looks as style.css says, without the tables and lists of gradio's own."""
    return gr.HTML(value, apply_default_css=False, **options)


def _try_it(service: Service) -> None:
    first, shown = service.show_example(0) if service.examples else ("", EMPTY)
    with gr.Row(elem_classes="sm-examples"):
        html("<strong>Examples</strong>")
        buttons = [gr.Button(e.label, size="sm", min_width=60) for e in service.examples]
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            text = gr.Textbox(first, label="Your text (English works best)", lines=5, max_lines=12)
        with gr.Column(scale=1, min_width=240):
            model = gr.Dropdown(service.models(), label="Probe")
            start = gr.Button("Reconstruct", variant="primary", elem_id="sm-start")
    summary = html(shown.summary, elem_id="sm-summary")
    view = gr.Radio(VIEWS, value="words", label="Mark the words of the text by")
    with gr.Row():
        with gr.Column(min_width=300):
            gr.Markdown("### The text")
            marked = html(shown.text, elem_id="sm-original")
        with gr.Column(min_width=300):
            gr.Markdown("### What the probe wrote from the state")
            written = html(shown.reconstruction, elem_id="sm-written")
    gr.Markdown("### Which words")
    groups = html(shown.groups, elem_id="sm-groups")
    with gr.Row():
        with gr.Column(min_width=300):
            gr.Markdown("### How it changes with length")
            lengths = html(shown.lengths, elem_id="sm-lengths")
        with gr.Column(min_width=300):
            gr.Markdown(
                "### What can be guessed without the state\nUnder each word, what the *null probe* "
                "guesses: a copy of the probe that was trained without any state, given the true "
                "text before the word. Words that it guesses right say little about the state."
            )
            guesses = html(shown.null_guesses, elem_id="sm-null")
    with gr.Accordion("Every word", open=False):
        words = html(shown.words, elem_id="sm-words")

    outputs = [summary, marked, written, groups, lengths, guesses, words]
    view.change(None, view, js=SHOW_VIEW, api_visibility="private")
    gr.on(
        [start.click, text.submit],
        spoken(lambda text, model: service.show_text(text, model).values()),
        [text, model],
        outputs,
        show_progress_on=summary,
        **MODEL_QUEUE,
        **INTERNAL,
    )
    for index, button in enumerate(buttons):
        button.click(
            _example(service, index),
            None,
            [text, *outputs],
            queue=False,
            show_progress="hidden",
            api_visibility="private",
        )


def _example(service: Service, index: int) -> Callable[[], tuple[str, ...]]:
    def show() -> tuple[str, ...]:
        text, shown = service.show_example(index)
        return text, *shown.values()

    return show


def _explore(service: Service) -> None:
    first = first_selection(service.published)
    if first is None:
        html(f'<p class="sm-nothing">{NO_TABLES}</p>', elem_id="sm-no-tables")
        return
    shown = panels(service.published, first)
    options = service.published.options
    with gr.Row():
        model = gr.Dropdown(
            service.published.models, value=first.model, label="Probe", min_width=240
        )
        source = gr.Dropdown(
            options("source", probe=first.model),
            value=first.source,
            label="Texts from",
            min_width=240,
        )
        length = gr.Dropdown(
            _lengths(service, first),
            value=first.length,
            label="Length (tokens)",
            min_width=240,
        )
    with gr.Row():
        scheme = gr.Radio(
            [(v, k) for k, v in SCHEMES.items()], value="pos", label="Group words by", min_width=260
        )
        rule = gr.Radio(
            [(v, k) for k, v in RULES.items()],
            value="aligned",
            label="A word counts as recovered if it is",
            min_width=260,
        )
    early = gr.Checkbox(False, label="Leave out the last four tokens, which are nearly free")
    tags = html(shown.tags, elem_id="sm-tags")
    with gr.Row():
        with gr.Column(min_width=300):
            by_length = html(shown.lengths, elem_id="sm-by-length")
        with gr.Column(min_width=300):
            by_position = html(shown.positions, elem_id="sm-by-position")
    gr.Markdown("### The paper's claims")
    verdicts = html(shown.verdicts, elem_id="sm-verdicts")

    controls = [model, source, length, scheme, rule, early]

    def select(*values: Any) -> tuple[Any, ...]:
        names = ("model", "source", "length", "scheme", "rule", "early")
        found, new = service.explore(Selection(**dict(zip(names, values, strict=True))))
        return (
            gr.Dropdown(options("source", probe=found.model), value=found.source),
            gr.Dropdown(_lengths(service, found), value=found.length),
            new.tags,
            new.lengths,
            new.positions,
            new.verdicts,
        )

    gr.on(
        [control.input for control in controls],
        spoken(select),
        controls,
        [source, length, tags, by_length, by_position, verdicts],
        queue=False,
        **INTERNAL,
    )


def _lengths(service: Service, selection: Selection) -> list[tuple[str, int]]:
    lengths = service.published.options("length", probe=selection.model, source=selection.source)
    return [(length_label(length), length) for length in lengths]


if __name__ == "__main__":
    build(make_service()).launch(**LAUNCH)
