#!/bin/sh
# Train the bundled models: encoder mamba-tiny, its probe and its null probe.
#
#   scripts/bundle.sh WORKDIR [SRC ...]       e.g. scripts/bundle.sh /tmp/bundle wiki=wiki.jsonl.xz
#
# What it makes in WORKDIR: tokenizer/ and corpus/ (unless there already), mamba-tiny/,
# mamba-tiny-probe/, mamba-tiny-null-probe/ and evaluation.json. Run it again after an
# interruption: what is done stays, what was interrupted continues. MINUTES=9 ends the training
# under way after 9 minutes with a checkpoint and exit status 3, for machines lent in parts. FLAGS
# adds flags to each training (FLAGS=--cuda-graphs on a GPU). SELMEM is the command (default:
# selmem), PYTHON the interpreter (default: python).
#
# Time on one H200, with FLAGS=--cuda-graphs: encoder 200 s (459M tokens, 2.6M a second), probe
# and null probe 490 s when both train at once on the card (590M tokens each, 1.2M a second).
# Numbers (scripts/results/bundle.json, held-out documents): encoder 3.91 bits per token; greedy
# tokens in place 0.997, 0.937 and 0.596 at T = 4, 8 and 16; forced tokens right 0.757 at T = 64
# and 0.544 at T = 256; bits per token at T = 64 1.43 with the state and 4.28 without.
set -eu

scripts=$(cd "$(dirname "$0")" && pwd)
work=$1
shift
SELMEM=${SELMEM:-selmem}
PYTHON=${PYTHON:-python}
started=$(date +%s)

train() { # COMMAND NAME FLAG...
    command=$1
    name=$2
    shift 2
    if [ -e "$name/config.json" ]; then return; fi
    resume=
    if [ -e "$name/checkpoints/run.json" ]; then resume=--resume; fi
    limit=
    if [ -n "${MINUTES:-}" ]; then
        limit="--max-minutes $(awk "BEGIN { print $MINUTES - ($(date +%s) - $started) / 60 }")"
    fi
    # shellcheck disable=SC2086 # flags are words
    $SELMEM "$command" --out "$name" --data corpus "$@" \
        ${FLAGS:-} $limit $resume
    if [ ! -e "$name/config.json" ]; then
        echo "$name is not done; run this again to continue" >&2
        exit 3
    fi
}

mkdir -p "$work"
if [ ! -e "$work/tokenizer/tokenizer.json" ]; then
    "$PYTHON" "$scripts/train_tokenizer.py" --data "$@" --out "$work/tokenizer"
fi
if [ ! -e "$work/corpus/store.json" ]; then
    "$PYTHON" "$scripts/build_corpus.py" --data "$@" --tokenizer "$work/tokenizer" \
        --out "$work/corpus"
fi

cd "$work"
configs=$scripts/configs
train pretrain mamba-tiny --config "$configs/mamba-tiny.yaml" --tokenizer tokenizer
train train mamba-tiny-probe --config "$configs/mamba-tiny-probe.yaml" \
    --encoder mamba-tiny --encoder-name selmem/mamba-tiny
train train mamba-tiny-null-probe --config "$configs/mamba-tiny-probe.yaml" \
    --encoder mamba-tiny --encoder-name selmem/mamba-tiny --condition none
"$PYTHON" "$scripts/evaluate_bundle.py" --encoder mamba-tiny --probe mamba-tiny-probe \
    --null-probe mamba-tiny-null-probe --corpus corpus --out evaluation.json
