"""The study of our own Mamba family, stage by stage: encoders, probes, controls, measurements.

    python scripts/study.py STAGE ... --work DIR --corpus NAME=SRC ...      train, or go on training
    python scripts/study.py STAGE ... --work DIR --list                     what it is, what is done

DIR/tokenizer and DIR/corpus are made from --corpus, unless there already; so is DIR/corpus-neox, of
the tokenizer in DIR/tokenizer-neox. Runs whose corpus is missing wait for it while others run.
Run the same command again after an interruption: what is done stays, what was interrupted
continues. --minutes 9 ends what is under way after 9 minutes with a checkpoint and exit status 3,
for machines lent in parts.
--cards N shares the runs out to N GPUs, the first of CUDA_VISIBLE_DEVICES if that is set; a small
run leaves room for others on its card, as study_runs.py says (start NVIDIA's MPS first), --jobs 1
gives each a card of its own. --flags adds flags to each training (--flags --cuda-graphs on a GPU).

--sources are measured, at most --max-chunks chunks of each and length, --control-chunks of them
with parts of the state exchanged; aave and sae, two versions of the same lines, as whole texts and
by their first 16 tokens. DIR/frequencies.parquet (`selmem count`), DIR/frequencies-neox.parquet and
DIR/overlap.parquet (`selmem overlap`) are used if there, and by `report` DIR/pile-unigrams.npy, the
Pile's count of every GPT-NeoX token (int64[50277]).
--measure-flags "FLAG ..." adds flags to each measurement, --report-flags to each report.

Stages: encoders (four sizes), neox (one encoder, probe and null probe with the GPT-NeoX tokenizer),
probes (probe and null probe of every size), seeds (two more of each for 1m and 4m), lengths
(dedicated to T = 64 and to T = 256), parts (convolution or SSM state alone), depth (extra layers),
convergence (twice the tokens), half (half of them), again (the smallest size twice more from
scratch, with the same seed and another), causal (frequencies exchanged; needs passages and build of
causal_frequency.py before), checkpoint (readers of DIR/encoder, made by others; see
state_spaces.sh); measure, measure-causal, measure-checkpoint (`selmem measure` of what is trained);
report (of each size with its card's tables, of other readers; comparisons) and report-causal, which
need no GPU and are given the same --sources. What runs they consist of stands in study_runs.py and
study_measures.py.

Time: --list prints for each run the minutes alone on one H200, an estimate (scripts/speed.py); the
minutes that runs took, several on a card, stand in results/study/trainings.parquet.
Run so far, on H200s: all of it but checkpoint and the convergence of 15m and 45m; measured at most
100 chunks of a source and length (30 with controls).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

from study_measures import MEASUREMENTS, Text
from study_runs import CAUSAL_SEEDS, STAGES, Run, minutes

SCRIPTS = Path(__file__).resolve().parent
UNFINISHED = 3


class Limits(NamedTuple):
    """How many GPUs there are, and how many runs one takes at once."""

    cards: int
    jobs: int


def share_null_probes(work: Path) -> None:
    """Let a null probe of its own corpus serve the other encoder too: it reads no state."""
    for (read, own), seed in product((("a", "b"), ("b", "a")), CAUSAL_SEEDS):
        trained = work / f"causal/null-{own}-{own}-{seed}"
        copy = work / f"causal/null-{read}-{own}-{seed}"
        like = work / f"causal/probe-{read}-{own}-{seed}/config.json"
        if copy.exists() or not like.exists() or not (trained / "config.json").exists():
            continue
        partial = copy.with_name(f".{copy.name}.part")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(trained, partial)
        config = json.loads((partial / "config.json").read_text(encoding="utf-8"))
        theirs = json.loads(like.read_text(encoding="utf-8"))
        config |= {name: theirs[name] for name in theirs if name.startswith("encoder_")}
        (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        partial.rename(copy)


def show(runs: list[Run], work: Path) -> None:
    """Print what each run is and whether it is done."""
    total = 0.0
    for run in runs:
        spent = minutes(run)
        done = (work / run.mark).exists()
        started = (work / run.out / "checkpoints" / "run.json").exists()
        state = "done" if done else "begun" if started else ""
        total += 0.0 if done or spent is None else spent
        estimate = "" if spent is None else f"{spent:6.1f} min"
        command = " ".join([run.script or "selmem", *run.arguments()])
        print(f"{run.out:32} {estimate:>11} {state:6} {command}")
    print(f"to do: {total:.0f} minutes of training, one after the other (estimate)")


def prepare(work: Path, corpus: list[str], runs: list[Run]) -> None:
    """Make the tokenizer and the corpus stores that the runs need, unless they are there.

    A store that cannot be made is named, with the runs that wait for it; the others run, and so do
    these once it comes from elsewhere. The GPT-NeoX tokenizer must be put into DIR/tokenizer-neox.
    """
    for name in ("corpus", "corpus-neox"):
        waiting = [r.out for r in runs if r.store == name and not (work / r.mark).exists()]
        if not waiting or (work / name / "store.json").exists():
            continue
        tokenizer = work / name.replace("corpus", "tokenizer")
        has_tokenizer = (tokenizer / "tokenizer.json").exists()
        if not corpus or (name == "corpus-neox" and not has_tokenizer):
            missing = tokenizer if corpus else "--corpus"
            told = f"{work / name} is not there, and cannot be made without {missing}"
            print(f"{told}; waiting for it: {' '.join(waiting)}", file=sys.stderr)
            continue
        if not has_tokenizer:
            script("train_tokenizer.py", "--data", *corpus, "--out", tokenizer)
        made = ("--tokenizer", tokenizer, "--out", work / name)
        script("build_corpus.py", "--data", *corpus, *made)


def script(name: str, *words: str | Path) -> None:
    """Run another script of this folder."""
    subprocess.run([sys.executable, SCRIPTS / name, *words], check=True)


def ready(runs: list[Run], work: Path, tried: set[str]) -> Iterator[Run]:
    """Yield the runs that can start now, in their order."""
    for run in runs:
        fresh = run.out not in tried and not (work / run.mark).exists()
        if fresh and all((work / path).exists() for path in run.files):
            yield run


@dataclass
class Active:
    """A run under way."""

    run: Run
    card: int
    process: "subprocess.Popen[bytes]"


def free_card(active: list[Active], reserved: set[int], share: float, limits: Limits) -> int | None:
    """Return the emptiest card with room for a share; where there is none, reserve the emptiest.

    A card reserved for a large run takes no smaller ones, else they would keep it busy for ever;
    but it takes what needs next to nothing of it.
    """
    loads = {card: 0.0 for card in range(limits.cards) if card not in reserved or not share}
    counts = Counter(job.card for job in active if job.run.share)
    for job in active:
        if job.card in loads:
            loads[job.card] += job.run.share
    if not loads:
        return None
    card = min(loads, key=loads.__getitem__)
    if not share or (loads[card] + share <= 1 + 1e-6 and counts[card] < limits.jobs):
        return card
    reserved.add(card)
    return None


def execute(runs: list[Run], args: argparse.Namespace) -> int:
    """Run what is not done, as many at once as there is room for; return the exit status."""
    started = time.monotonic()
    limits = Limits(args.cards, args.jobs)
    active: list[Active] = []
    tried: set[str] = set()
    status = 0
    while True:
        reserved: set[int] = set()
        for run in list(ready(runs, args.work, tried)):
            left = args.minutes - (time.monotonic() - started) / 60 if args.minutes else None
            card = free_card(active, reserved, run.share, limits)
            if left is not None and left < 0.5:
                break
            if card is None:
                continue
            tried.add(run.out)
            active.append(Active(run, card, start(run, args, left, card)))
        if not active:
            break
        time.sleep(0.2)
        for job in [job for job in active if job.process.poll() is not None]:
            active.remove(job)
            code = job.process.returncode
            status = status or code
            spent = (time.monotonic() - started) / 60
            print(f"{spent:5.1f} min {job.run.out}: {f'failed ({code})' if code else 'ended'}")
            sys.stdout.flush()
            share_null_probes(args.work)
    undone = [run.out for run in runs if not (args.work / run.mark).exists()]
    if undone:
        print(f"not done: {' '.join(undone)}; run this again to continue", file=sys.stderr)
    return status or (UNFINISHED if undone else 0)


def devices(cards: int) -> list[str]:
    """Return the names of that many GPUs, as CUDA_VISIBLE_DEVICES takes them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(card) for card in range(cards)]
    if len(names) < cards:
        raise SystemExit(f"--cards {cards}, but CUDA_VISIBLE_DEVICES={visible} names {len(names)}")
    return names[:cards]


def start(
    run: Run, args: argparse.Namespace, left: float | None, card: int
) -> "subprocess.Popen[bytes]":
    """Start one command; its log is beside its folder."""
    environment = {**os.environ}
    if args.cards > 1:
        environment["CUDA_VISIBLE_DEVICES"] = devices(args.cards)[card]
    program = [sys.executable, str(SCRIPTS / run.script)] if run.script else args.selmem.split()
    words = [*program, *run.arguments()]
    if run.command[0] == "measure":
        words += args.measure_flags.split()
    elif run.command[0] == "report":
        words += args.report_flags.split()
    elif run.config is not None:
        words += args.flags
        words += [] if left is None else ["--max-minutes", f"{left:.2f}"]
        if (args.work / run.out / "checkpoints" / "run.json").exists():
            words.append("--resume")
    log = args.work / f"{run.out}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        both = {"stdout": file, "stderr": subprocess.STDOUT}
        return subprocess.Popen(words, cwd=args.work, env=environment, **both)


def absolute(source: str) -> str:
    """Return a source that means the same in any folder.

    >>> absolute("news=hub:org/news")
    'news=hub:org/news'
    """
    name, equals, address = source.rpartition("=")
    path, mark, option = address.partition("#")
    found = Path(path).resolve() if Path(path).exists() else path
    return f"{name}{equals}{found}{mark}{option}"


def chosen(args: argparse.Namespace) -> list[Run]:
    """Return the runs of the stages, those named by --only."""
    sources = [absolute(source) for source in args.sources]
    controls = args.max_chunks if args.control_chunks is None else args.control_chunks
    text = Text(sources, args.max_chunks, controls, args.work)
    every = [STAGES[name]() if name in STAGES else MEASUREMENTS[name](text) for name in args.stages]
    return [run for runs in every for run in runs if not args.only or run.out in args.only]


def main() -> int:
    """Read the arguments and list or run the stages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", choices=[*STAGES, *MEASUREMENTS], metavar="STAGE")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--corpus", nargs="+", default=[], metavar="SRC", help="to train on")
    parser.add_argument("--sources", nargs="+", default=[], metavar="SRC", help="to measure")
    parser.add_argument("--max-chunks", type=int, default=2000, help="of a source and length")
    parser.add_argument(
        "--control-chunks", type=int, help="the same with controls, which cost more"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="FOLDER", help="of these runs")
    parser.add_argument("--cards", type=int, default=1, help="GPUs")
    parser.add_argument("--jobs", type=int, default=12, help="trainings at once on a card, at most")
    parser.add_argument("--minutes", type=float, help="end what is under way after this time")
    parser.add_argument("--list", action="store_true", help="print the runs and do nothing")
    parser.add_argument("--measure-flags", default="", help="for each measurement, as one word")
    parser.add_argument("--report-flags", default="", help="for each report, as one word")
    parser.add_argument("--selmem", default="selmem", help="the command")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="for each training")
    args = parser.parse_args()
    devices(args.cards)
    runs = chosen(args)
    if args.list:
        show(runs, args.work)
        return 0
    prepare(args.work, args.corpus, runs)
    return execute(runs, args)


if __name__ == "__main__":
    sys.exit(main())
