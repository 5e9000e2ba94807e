"""What is measured for the study, and reported: every command; see study.py.

The dialect pairs are the sources named aave and sae: two versions of the same lines, measured as
whole texts and by their first 16 tokens, not in chunks.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from study_contrasts import PAIRS
from study_runs import (
    CAUSAL_SEEDS,
    CONTROLLED,
    DEDICATED,
    FROM_SCRATCH,
    PROBE_RATES,
    SEEDS,
    Run,
)
from study_token_counts import COUNTS, NEOX, PILE_COUNTS, TOKENIZER

LENGTHS, CONTROL_LENGTHS = (4, 8, 16, 32, 64, 128, 256), (16, 64, 256)
CONTROLS = {"lengths": CONTROL_LENGTHS, "controls": True, "training_corpus": "corpus"}
PAIRED = ("aave", "sae")
MAX_PAIRS, PREFIX = 2000, 16
CARD = "mamba-own-{}-probe"  # name of a card's tables


@dataclass(frozen=True)
class Text:
    """What is measured, and what is known about it.

    Attributes:
        sources: as `selmem measure --data` takes them.
        max_chunks: of a source and length; of the dialect pairs 2,000 instead.
        control_chunks: the same where parts of the state are exchanged.
        work: working folder; its frequencies.parquet and overlap.parquet are used if they are
            there, for the GPT-NeoX tokenizer frequencies-neox.parquet.
    """

    sources: Sequence[str]
    max_chunks: int
    control_chunks: int
    work: Path

    @property
    def pairs(self) -> list[str]:
        """The two versions of the same lines."""
        return [source for source in self.sources if source.partition("=")[0] in PAIRED]

    @property
    def others(self) -> list[str]:
        """All other sources."""
        return [source for source in self.sources if source not in self.pairs]

    def known(self, *, neox: bool = False) -> dict[str, str]:
        """Return the files about the text, by the flag of `selmem measure`."""
        files = {"frequencies": "frequencies", "overlap": "overlap"}
        files |= {"frequencies": "frequencies-neox"} if neox else {}
        paths = {flag: f"{name}.parquet" for flag, name in files.items()}
        return {flag: path for flag, path in paths.items() if (self.work / path).exists()}


def measurement(
    out: str, read: str, probe: str, null: str, sources: Sequence[str], **settings: Any
) -> Run:
    """Return one measurement."""
    given = {"encoder": read, "probe": [probe, *settings.pop("others", [])], "null_probe": null}
    needs = (read, null, *(name.rpartition("=")[2] for name in given["probe"]))
    command = ("measure", "--data", *sources)
    return Run(out, command, None, {**given, **settings}, needs, result="run.json")


def measure(text: Text) -> list[Run]:
    """Return the measurements of the family, the longest first, then those of its other readers."""
    sizes = list(reversed(PROBE_RATES))
    return [
        *(controls(size, text) for size in sizes),
        *(run for size in sizes for run in of_size(size, text)),
        *(variant(name, text) for name in variants()),
    ]


def models(name: str) -> tuple[str, str, str]:
    """Return the folders of encoder, probe and null probe.

    >>> models("4m-deep"), models("4m-neox")[0], models("1m-again")[0]
    (('encoders/4m', 'probes/4m-deep', 'nulls/4m-deep'), 'encoders/4m-neox', 'encoders/1m-again')
    """
    own = name in FROM_SCRATCH or name.endswith("-neox")
    return f"encoders/{name if own else name.partition('-')[0]}", f"probes/{name}", f"nulls/{name}"


def of_size(size: str, text: Text) -> list[Run]:
    """Return what one report is made of: chunks of every length, and the dialect pairs."""
    known, found = text.known(), []
    if text.others:
        given = {"lengths": LENGTHS, "max_chunks": text.max_chunks, **known}
        found.append(measurement(f"measured/{size}", *models(size), text.others, **given))
    if text.pairs:
        for name, length in (("pairs", "whole"), ("prefixes", PREFIX)):
            given = {"lengths": length, "max_chunks": MAX_PAIRS, **known}
            out = f"measured/{size}-{name}"
            found.append(measurement(out, *models(size), text.pairs, **given))
    return found


def controls(size: str, text: Text) -> Run:
    """Return the measurement with parts of the state exchanged, and with other probes."""
    names = ("conv", "ssm", "deep") if size == CONTROLLED else ()
    given: dict[str, Any] = {"others": [f"{name}=probes/{size}-{name}" for name in names]}
    given |= {**CONTROLS, "max_chunks": text.control_chunks, **text.known()}
    return measurement(f"measured/{size}-controls", *models(size), text.others, **given)


def variants() -> list[str]:
    """Return the names of other readers: seeds, further runs, depth, one length, GPT-NeoX."""
    return [f"{CONTROLLED}-neox", f"{CONTROLLED}-deep", *DEDICATED, *SEEDS, *FROM_SCRATCH]


def variant(name: str, text: Text) -> Run:
    """Return the measurement of another reader."""
    lengths = [DEDICATED[name]] if name in DEDICATED else CONTROL_LENGTHS
    given = {"lengths": lengths, "max_chunks": text.max_chunks}
    given |= text.known(neox=name.endswith("-neox"))
    return measurement(f"measured/{name}", *models(name), text.others, **given)


def measure_checkpoint(text: Text) -> list[Run]:
    """Return the measurements of a checkpoint made by others."""
    folders = ("encoder", "probe", "null-probe")
    of_all = {"lengths": LENGTHS, "max_chunks": text.max_chunks}
    exchanged = {**CONTROLS, "max_chunks": text.control_chunks}
    return [
        measurement("measured", *folders, text.sources, **of_all, **text.known()),
        measurement("controls", *folders, text.sources, **exchanged, **text.known()),
    ]


def measure_causal(_text: Text) -> list[Run]:
    """Return the measurements of every encoder by every reader, on the same passages."""
    return [
        measurement(
            f"causal/measured/{read}-{own}-{seed}",
            f"causal/encoder-{read}-{seed}",
            f"causal/probe-{read}-{own}-{seed}",
            f"causal/null-{read}-{own}-{seed}",
            ["pairs=causal/evaluation.jsonl"],
            lengths=(16, 64),
            max_chunks=40_000,
            annotate="none",
        )
        for seed in CAUSAL_SEEDS
        for read, own in product("ab", "ab")
    ]


def report(text: Text) -> list[Run]:
    """Return the reports: of each size with its card's tables, of other readers; comparisons."""
    parts = {size: [run.out for run in of_size(size, text)] for size in reversed(PROBE_RATES)}
    own = [one_report(size, folders) for size, folders in parts.items()]
    others = [one_report(name, [f"measured/{name}"]) for name in variants()]
    return [*own, *others, *(card(size) for size in parts), *comparisons(), *token_counts(text)]


def one_report(name: str, folders: Iterable[str]) -> Run:
    """Return the report of some measurements."""
    dirs = tuple(folders)
    inputs = tuple(f"{folder}/run.json" for folder in dirs)
    out = f"reports/{name}"
    return Run(out, ("report", *dirs), inputs=inputs, result="report.html")


def comparisons() -> list[Run]:
    """Return the comparisons of the sizes, and of other readers with the plain probe."""
    readers = sorted({name for pair in PAIRS for name in pair})
    return [compared("sizes", PROBE_RATES), compared("readers", readers)]


def compared(what: str, names: Iterable[str]) -> Run:
    """Return one comparison of measurements."""
    inputs = tuple(f"measured/{name}/run.json" for name in names)
    script, out = "study_contrasts.py", f"comparisons/{what}"
    return Run(out, (".", what), inputs=inputs, result="table.parquet", script=script)


def token_counts(text: Text) -> list[Run]:
    """Return the comparison of the Pile's token counts with the corpus's, if those are there."""
    if not (text.work / PILE_COUNTS).exists():
        return []
    inputs = (f"measured/{NEOX}/run.json", COUNTS, f"{TOKENIZER}/tokenizer.json", PILE_COUNTS)
    script, out = "study_token_counts.py", "comparisons/token_counts"
    command = (".", PILE_COUNTS)
    return [Run(out, command, inputs=inputs, result="table.parquet", script=script)]


def card(size: str) -> Run:
    """Return the tables of a probe's card, with its controls."""
    name, made, exchanged = CARD.format(size), f"reports/{size}", f"measured/{size}-controls"
    return Run(
        f"tables/{name}",
        (made, name, "--controls", exchanged, "--tables", "tables"),
        inputs=(f"{made}/report.html", f"{exchanged}/run.json"),
        result="verdicts.parquet",
        script="card_tables.py",
    )


def report_causal(text: Text) -> list[Run]:
    """Return the effects of frequency, from all measurements of the exchanged corpora."""
    cells = {run.out.rpartition("/")[2]: run.out for run in measure_causal(text)}
    given = (f"{cell[:3].upper()}{cell[3:]}={folder}" for cell, folder in cells.items())
    return [
        Run(
            "causal/effects",
            ("effects", *given, "--pairs", "causal/pairs.jsonl", "--out", "causal/effects"),
            inputs=tuple(f"{folder}/run.json" for folder in cells.values()),
            result="effects.parquet",
            script="causal_frequency.py",
        )
    ]


MEASUREMENTS: dict[str, Callable[[Text], list[Run]]] = {
    "measure": measure,
    "measure-causal": measure_causal,
    "measure-checkpoint": measure_checkpoint,
    "report": report,
    "report-causal": report_causal,
}
