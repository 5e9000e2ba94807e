#!/bin/sh
# The whole study for one checkpoint of state-spaces: probe, null probe, measurements, report.
#
#   scripts/state_spaces.sh 130m|370m|790m|1.4b OUT             needs the Hub and a GPU
#   scripts/state_spaces.sh 130m|370m|790m|1.4b OUT --dry-run   random weights, offline, on a CPU
#
# The encoder is state-spaces/mamba-SIZE-hf at one commit: that of REVISION when the script first
# runs in OUT (default: main), kept in OUT/revision. CORPUS is what the probes are trained on, its
# first TOKENS tokens; SOURCES what is measured; both are lists of Hub datasets or files. Their
# default ids could not be reached where this was written: check that they are what you want.
# FLAGS adds flags to each training. MINUTES=9 ends the training under way after 9 minutes with a
# checkpoint and exit status 3; run the same command again after any interruption: what is done
# stays. SELMEM is the command (default: selmem), PYTHON the interpreter (default: python).
#
# What it makes in OUT: encoder, corpus, probe, null-probe, measured (4 to 256 tokens), controls
# (16, 64 and 256), report/report.html, and tables/mamba-SIZE-probe for the probe's card.
#
# Cost of the trainings (1.07G tokens each) in hours of one H200, as `python scripts/speed.py SIZE`
# prints it from scripts/results/bench_gpu.json, which has the probes' speed with random weights:
#   130m: 2.0   370m: 5.6   790m: 9.6   1.4b: 14.8
# The dry run takes the same way with two layers of random weights and two steps of training, after
# building the whole shape without memory: 70 seconds of processor time for 130m.
# Numbers: not yet run on a real checkpoint.
set -eu

size=$1
out=$2
dry=${3:-}
scripts=$(cd "$(dirname "$0")" && pwd)
SELMEM=${SELMEM:-selmem}
PYTHON=${PYTHON:-python}
TOKENS=${TOKENS:-1100000000}
CORPUS=${CORPUS:-pile=hub:monology/pile-uncopyrighted:default:train}
SOURCES=${SOURCES:-gsm8k=hub:openai/gsm8k:main:test#question,answer
    humaneval=hub:openai/openai_humaneval:openai_humaneval:test#prompt,canonical_solution
    pile=hub:monology/pile-uncopyrighted:default:test}
FLAGS=${FLAGS:-}
measured=
name=state-spaces/mamba-$size-hf

mkdir -p "$out"
"$PYTHON" "$scripts/speed.py" "$size" --tokens 1073741824
if [ "$dry" = --dry-run ]; then
    "$PYTHON" "$scripts/dry_encoder.py" "$size" "$out/encoder"
    echo "random" >"$out/revision"
    sample=$("$PYTHON" -c 'import selmem; print(selmem.bundled_path("sample"))')/documents.jsonl
    CORPUS=sample=$sample
    SOURCES=sample=$sample
    FLAGS="--max-steps 2 --tokens-per-batch 32 --held-out-tokens 32 --lengths 4 16
        --length-weights 1 1 --device cpu $FLAGS"
    measured="--max-chunks 2 --annotate none --device cpu --lengths 4 16"
elif [ ! -e "$out/encoder/config.json" ]; then
    "$PYTHON" -c '
import sys
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
name, revision, out = sys.argv[1], sys.argv[2], Path(sys.argv[3])
commit = HfApi().model_info(name, revision=revision).sha
Path(out, "revision").write_text(commit + "\n")
snapshot_download(name, revision=commit, local_dir=out / "encoder")
' "$name" "${REVISION:-main}" "$out"
fi
if [ ! -e "$out/corpus/store.json" ]; then
    "$PYTHON" "$scripts/build_corpus.py" --data $CORPUS --tokenizer "$out/encoder" \
        --max-tokens "$TOKENS" --out "$out/corpus"
fi

"$PYTHON" "$scripts/study.py" checkpoint measure-checkpoint --work "$out" --sources $SOURCES \
    --selmem "$SELMEM" ${MINUTES:+--minutes "$MINUTES"} --measure-flags " $measured" \
    --flags --encoder-name "$name" --encoder-revision "$(cat "$out/revision")" $FLAGS
tables=$out/controls
if [ "$dry" != --dry-run ]; then
    $SELMEM report "$out/measured" --out "$out/report"
    tables=$out/report
fi
"$PYTHON" "$scripts/card_tables.py" "$tables" "mamba-$size-probe" --controls "$out/controls" \
    --tables "$out/tables"
echo "done: $out"
