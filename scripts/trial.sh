#!/bin/sh
# Put the claims of the source paper on trial with the bundled models, on a CPU.
#
#   scripts/trial.sh OUT NAME=SRC [NAME=SRC ...]
#
#   CORPUS="wikipedia_en=wiki.jsonl.xz ..." scripts/trial.sh /tmp/trial \
#       conll2003=eng.testb gum=gum_test.conllu "gsm8k=test.jsonl#question,answer" \
#       "humaneval=HumanEval.jsonl#prompt,canonical_solution" github_code=code.jsonl \
#       "aave=aave.txt#lines" "sae=sae.txt#lines"
#
# A source is anything `selmem measure --data` takes; its name is what the claims about domains go
# by (maths: math, gsm8k, ...; code: code, github, humaneval). Sources named aave and sae are two
# versions of the same lines: they are measured as whole texts, and by their first 16 tokens. The
# first source is also measured with parts of the state exchanged. CORPUS is what the models were
# trained on: its words are counted, documents that stand in it to a tenth are left out, and the
# mean states among the controls are those of its text.
#
# What it makes in OUT: frequencies.parquet, overlap.parquet and corpus (with CORPUS), the
# measurements short (16 and 64 tokens), long (256), pairs, prefixes and controls,
# report/report.html with the verdicts, and tables/trial. Run it again after an interruption: what
# is done stays. MODELS is a folder with mamba-tiny, mamba-tiny-probe and mamba-tiny-null-probe
# (default: the bundled ones), MAX_CHUNKS the most chunks of a source and length (default 300; a
# third of it at 256 tokens, and 2,000 pairs), SELMEM the command (default: selmem), PYTHON the
# interpreter (default: python).
#
# Time: with 20 sources, one core and 300 chunks, 34 minutes of processor time to measure (over half
# of it tags text) and 4 for the report; counting and overlap with a corpus of 300 MB come on top.
# Numbers: scripts/results/trial holds tables/trial of such a run, on CoNLL-2003, EWT and GUM test,
# GSM8K, HumanEval, 15 sets standing for the Pile's domains and 2,000 of 2,019 pairs of tweets
# in two varieties of English; the README shows the verdicts (scripts/readme_tables.py).
set -eu

here=$(dirname "$0")
out=$1
shift
SELMEM=${SELMEM:-selmem}
PYTHON=${PYTHON:-python}
CORPUS=${CORPUS:-}
MAX_CHUNKS=${MAX_CHUNKS:-300}
MODELS=${MODELS:-$($PYTHON -c 'import selmem; print(selmem.bundled_path("mamba-tiny").parent)')}
mkdir -p "$out"

# a space stands between sources, so none may hold one
sources=""
pairs=""
for source in "$@"; do
    case $source in
        aave=* | sae=*) pairs="$pairs $source" ;;
        *) sources="$sources $source" ;;
    esac
done

known=""
trained=""
if [ -n "$CORPUS" ]; then
    [ -e "$out/frequencies.parquet" ] ||
        $SELMEM count --data $CORPUS --tokenizer "$MODELS/mamba-tiny" \
            --out "$out/frequencies.parquet"
    [ -e "$out/overlap.parquet" ] ||
        $SELMEM overlap --data "$@" --corpus $CORPUS --out "$out/overlap.parquet"
    [ -e "$out/corpus/store.json" ] ||
        "$PYTHON" "$here/build_corpus.py" --data $CORPUS --tokenizer "$MODELS/mamba-tiny" \
            --out "$out/corpus"
    known="--frequencies $out/frequencies.parquet --overlap $out/overlap.parquet"
    trained="--training-corpus $out/corpus"
fi

measure() { # FOLDER MAX_CHUNKS FLAG...
    folder=$1
    max_chunks=$2
    shift 2
    $SELMEM measure --encoder "$MODELS/mamba-tiny" --probe "$MODELS/mamba-tiny-probe" \
        --null-probe "$MODELS/mamba-tiny-null-probe" $known --max-chunks "$max_chunks" \
        --out "$out/$folder" "$@"
}

measure short "$MAX_CHUNKS" --data $sources --lengths 16 64
measure long $((MAX_CHUNKS / 3)) --data $sources --lengths 256
set -- "$out/short" "$out/long"
if [ -n "$pairs" ]; then
    measure pairs 2000 --data $pairs --lengths whole
    measure prefixes 2000 --data $pairs --lengths 16
    set -- "$@" "$out/pairs" "$out/prefixes"
fi
$SELMEM report "$@" --out "$out/report"

# the same chunks as in `short`, so in a report of their own
measure controls "$MAX_CHUNKS" --data ${sources%% *} --lengths 16 --controls $trained
"$PYTHON" "$here/card_tables.py" "$out/report" trial --tables "$out/tables" \
    --controls "$out/controls"
