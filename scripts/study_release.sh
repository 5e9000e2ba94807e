#!/bin/sh
# Make everything that is committed of the study from its working folder.
#
#   scripts/study_release.sh WORK
#
# WORK holds what study.py trained and `selmem report` made of what it measured (the exact names
# stand in study_tables.py). Made are the aggregates, the figures, the README's section, the
# findings and the cards; what is missing in WORK is named and left out. Printed at the end are the
# bytes that a checkout then has. PYTHON is the interpreter (default: python). Time: a minute.
set -eu

cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
"$PYTHON" scripts/study_tables.py "$1"
"$PYTHON" scripts/study_figures.py
"$PYTHON" scripts/readme_tables.py
"$PYTHON" scripts/render_cards.py
git ls-files -z --cached --others --exclude-standard | xargs -0 du -cb | tail -1
