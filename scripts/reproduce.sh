#!/bin/sh
# Make again what is committed of tables, figures and cards, and compare.
#
#   scripts/reproduce.sh [OUT]             OUT is outputs/reproduced by default
#
# What is made again, from the bundled models and text and from committed tables alone, offline:
#   hub_cards/tables/mamba-tiny-probe      measured with controls, 150 chunks a length
#   hub_cards/figures/mamba-tiny-probe.png drawn from these tables
#   hub_cards/figures/study                the study's figures, and its models' pictures
#   hub_cards/cards                        the cards of the bundled models and the study's
#   README.md, hub_cards/findings.md       the tables of results, and the section on the study
#   scripts/results/coverage.csv           simulation of the intervals
# Tables are compared by value, cards by text (scripts/compare.py); exit status 1 where something
# differs. Not made again: what was measured on a GPU or on a certain machine (bundle.json,
# bench_*.json, the study's tables). Run it again after an interruption: what is done stays. SELMEM
# is the command (default: selmem), PYTHON the interpreter (default: python).
#
# Time: 4 minutes on two cores, most of it the measurement and coverage.csv. It ends with "6 as
# committed".
set -eu

cd "$(dirname "$0")/.."
out=${1:-outputs/reproduced}
SELMEM=${SELMEM:-selmem}
PYTHON=${PYTHON:-python}
models=src/selmem/bundled
mkdir -p "$out"

$SELMEM measure --encoder "$models/mamba-tiny" --probe "$models/mamba-tiny-probe" \
    --null-probe "$models/mamba-tiny-null-probe" --controls --max-chunks 150 \
    --lengths 4 8 16 32 64 --data "selmem_sample=$models/sample/documents.jsonl" --out "$out/measured"
"$PYTHON" scripts/card_tables.py "$out/measured" mamba-tiny-probe --tables "$out/tables"
"$PYTHON" scripts/study_figures.py "$out/figures"
"$PYTHON" scripts/render_cards.py "$out/cards"
"$PYTHON" scripts/readme_tables.py "$out/texts"
"$PYTHON" scripts/coverage.py --out "$out/coverage.csv"

set -- "$out/texts/README.md" README.md
[ -e hub_cards/findings.md ] && set -- "$@" "$out/texts/hub_cards/findings.md" hub_cards/findings.md
exec "$PYTHON" scripts/compare.py "$@" \
    "$out/tables/mamba-tiny-probe" hub_cards/tables/mamba-tiny-probe \
    "$out/figures" hub_cards/figures "$out/cards" hub_cards/cards \
    "$out/coverage.csv" scripts/results/coverage.csv
