"""The command line: `selmem COMMAND ...`.

Exit status: 0 done, 2 wrong input (one line on standard error), 1 a defect (with its traceback),
130 interrupted. What a command finds goes to standard output, its log and progress to standard
error. Every command imports what it needs when it runs.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from selmem.cli_hub import add_publish, add_verify
from selmem.console import (
    Parser,
    chunk_length,
    one_line,
    positive_number,
    seed_number,
    terminal_log,
)
from selmem.errors import InputError

USER_ERRORS = (
    InputError,
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
INTERRUPTED = 130  # what shells report for a process that the user stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    try:
        if rest and not arguments.takes_fields:
            raise InputError(
                f"unknown arguments: {' '.join(rest)}; see `selmem {arguments.command} --help`"
            )
        with terminal_log(logging.DEBUG if arguments.verbose else arguments.log_level):
            arguments.run(rest if arguments.takes_fields else arguments)
    except USER_ERRORS as error:
        print(f"selmem {arguments.command}: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"selmem {arguments.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # the reader of our output left; a second error at shutdown would hide that it is harmless
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = Parser(
        prog="selmem",
        description="Measure what the state of a Mamba language model keeps of a text.",
    )
    parser.add_argument("--version", action="version", version=f"selmem {version('selmem')}")
    verbose: Any = {"action": "store_true", "help": "show details of each step"}
    parser.add_argument("-v", "--verbose", **verbose)
    parser.set_defaults(takes_fields=False, log_level=logging.INFO)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_reconstruct(commands)
    _add_pretrain_and_train(commands)
    _add_measure(commands)
    _add_report(commands)
    _add_count(commands)
    _add_overlap(commands)
    add_publish(commands)
    add_verify(commands)
    for command in commands.choices.values():
        command.add_argument("-v", "--verbose", **verbose, default=argparse.SUPPRESS)
    return parser


def _add_demo(commands: Any) -> None:
    command = commands.add_parser(
        "demo", help="the whole job on the bundled models and text, offline, in two minutes"
    )
    command.add_argument(
        "--out",
        type=Path,
        default=Path("outputs/demo"),
        help="folder for report and tables (default: outputs/demo)",
    )
    command.set_defaults(run=_demo)


def _demo(arguments: argparse.Namespace) -> None:
    import torch

    from selmem.demo import run_demo

    # on models this small a second thread saves little, and where cores are shared it costs much
    torch.set_num_threads(1)
    _print_report(run_demo(arguments.out))


def _add_reconstruct(commands: Any) -> None:
    command = commands.add_parser(
        "reconstruct", help="show which words of a text the probe cannot write back"
    )
    command.add_argument("text", metavar="TEXT")
    command.add_argument("--encoder", help="folder or Hub id (default: the bundled mamba-tiny)")
    command.add_argument("--probe", help="folder or Hub id (default: the bundled probe)")
    command.add_argument("--null-probe", help="folder or Hub id, for recovered bits")
    command.add_argument("--bits", action="store_true", help="show the recovered bits of each word")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=_reconstruct, log_level=logging.WARNING)


def _reconstruct(arguments: argparse.Namespace) -> None:
    from selmem.reconstruct import reconstruct

    result = reconstruct(
        arguments.text,
        encoder=arguments.encoder,
        probe=arguments.probe,
        null_probe=arguments.null_probe,
    )
    print(result.to_json() if arguments.json else result.to_text(bits=arguments.bits))


def _add_pretrain_and_train(commands: Any) -> None:
    for name, run, summary in (
        ("pretrain", _pretrain, "train a small Mamba language model from scratch"),
        ("train", _train, "train a probe or a null probe for an encoder"),
    ):
        command = commands.add_parser(name, help=summary, add_help=False)
        command.set_defaults(run=run, takes_fields=True)


def _pretrain(fields: Sequence[str]) -> None:
    from selmem.pretraining import PretrainConfig, pretrain
    from selmem.runs.config import parse_config

    print(pretrain(parse_config(PretrainConfig, fields, prog="selmem pretrain")))


def _train(fields: Sequence[str]) -> None:
    from selmem.runs.config import parse_config
    from selmem.training import TrainConfig, train

    print(train(parse_config(TrainConfig, fields, prog="selmem train")))


def _add_measure(commands: Any) -> None:
    command = commands.add_parser(
        "measure", help="tables of what the probe writes back, per token, word and chunk"
    )
    command.add_argument("--encoder", required=True, help="folder or Hub id")
    command.add_argument(
        "--probe",
        required=True,
        nargs="+",
        help="folders or Hub ids; the first is measured, further ones stand beside it as controls",
    )
    command.add_argument("--null-probe", help="folder or Hub id")
    command.add_argument(
        "--data",
        required=True,
        nargs="+",
        metavar="SRC",
        help="[NAME=]PATH (txt, jsonl, parquet, CoNLL-2003, CoNLL-U) or "
        "[NAME=]hub:DATASET[:CONFIG[:SPLIT]]",
    )
    command.add_argument(
        "--lengths",
        required=True,
        nargs="+",
        type=chunk_length,
        metavar="T",
        help="tokens per chunk; `whole` measures each document that is not too long as one chunk",
    )
    command.add_argument("--out", required=True, type=Path, help="folder for the tables")
    command.add_argument("--controls", action="store_true", help="also with exchanged state parts")
    text = "for --controls: mean states are those of this store's training text, not of the chunks"
    command.add_argument("--training-corpus", type=Path, metavar="STORE", help=text)
    command.add_argument(
        "--max-chunks", type=int, default=2000, help="per source and length (default: 2000)"
    )
    command.add_argument("--batch-tokens", type=int, default=4096, help="per batch (default: 4096)")
    command.add_argument(
        "--annotate",
        choices=("spacy", "none"),
        default="spacy",
        help="how to find the words of untagged text (default: spacy)",
    )
    command.add_argument("--frequencies", type=Path, help="counts from `selmem count`, or .npy")
    command.add_argument(
        "--overlap",
        type=Path,
        help="from `selmem overlap`; documents above --max-overlap are left out",
    )
    text = "of a document's 13-grams that may stand in the training corpus (default: 0.1)"
    command.add_argument("--max-overlap", type=float, default=0.1, metavar="SHARE", help=text)
    command.add_argument("--device", help="cpu, cuda, ... (default: cuda where there is one)")
    command.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    command.add_argument(
        "--seed", type=seed_number, default=0, help="of samples and chance (default: 0)"
    )
    _add_workers(command, "processes that match words and write tables (default: 1)")
    command.set_defaults(run=_measure)


def _add_workers(command: Any, text: str) -> None:
    command.add_argument("--workers", type=positive_number, default=1, metavar="N", help=text)


def _measure(arguments: argparse.Namespace) -> None:
    from selmem.measurement import MeasureConfig, measure

    main_probe, *further = arguments.probe
    config = MeasureConfig(
        encoder=arguments.encoder,
        probe=main_probe,
        probes=tuple(further),
        null_probe=arguments.null_probe,
        data=tuple(arguments.data),
        lengths=tuple(arguments.lengths),
        out=arguments.out,
        controls=arguments.controls,
        training_corpus=arguments.training_corpus,
        max_chunks=arguments.max_chunks,
        batch_tokens=arguments.batch_tokens,
        annotate=arguments.annotate,
        frequencies=arguments.frequencies,
        overlap=arguments.overlap,
        max_overlap=arguments.max_overlap,
        device=arguments.device,
        dtype=arguments.dtype,
        seed=arguments.seed,
        workers=arguments.workers,
    )
    print(measure(config))


def _add_report(commands: Any) -> None:
    command = commands.add_parser("report", help="figures and one report.html from measured tables")
    command.add_argument("dirs", nargs="+", type=Path, metavar="DIR", help="what `measure` wrote")
    command.add_argument("--out", required=True, type=Path, help="folder for the report")
    _add_workers(command, "processes that share the tables (default: 1)")
    command.set_defaults(run=_report)


def _report(arguments: argparse.Namespace) -> None:
    from selmem.report import write_report
    from selmem.resampling import Resampling

    resampling = Resampling(workers=arguments.workers)
    _print_report(write_report(arguments.dirs, arguments.out, resampling=resampling))


def _print_report(path: Path) -> None:
    """Print the report's short table and where it is."""
    from selmem.report import load_tables, summary

    print(f"{summary(load_tables(path.parent))}\n\n{path}")


def _add_count(commands: Any) -> None:
    command = commands.add_parser("count", help="count the tokens and words of a corpus")
    command.add_argument("--data", required=True, nargs="+", metavar="SRC")
    command.add_argument("--tokenizer", required=True, help="folder or Hub id")
    command.add_argument("--out", required=True, type=Path, help="Parquet file")
    command.set_defaults(run=_count)


def _count(arguments: argparse.Namespace) -> None:
    from selmem.frequency import count

    print(count(arguments.data, arguments.tokenizer, arguments.out))


def _add_overlap(commands: Any) -> None:
    command = commands.add_parser(
        "overlap", help="how much of each document stands in a training corpus, by word 13-grams"
    )
    command.add_argument("--data", required=True, nargs="+", metavar="SRC", help="to be measured")
    command.add_argument("--corpus", required=True, nargs="+", metavar="SRC", help="trained on")
    command.add_argument("--out", required=True, type=Path, help="Parquet file")
    command.set_defaults(run=_overlap)


def _overlap(arguments: argparse.Namespace) -> None:
    from selmem.overlap import store_overlap

    print(store_overlap(arguments.data, arguments.corpus, arguments.out))
