#!/usr/bin/env bash
# Runs the Hub tests on the oldest supported transformers, huggingface_hub and datasets.
#
# Usage: scripts/oldest_supported.sh [VENV]      (default: build/oldest, made anew if absent)
# Time: about 3 minutes to install, 2 minutes to test, on 2 cores; 2 GB of disk.
# Expected: every test passes, none is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${1:-build/oldest}
pip="$venv/bin/pip --disable-pip-version-check install --quiet"
constraints=$(mktemp)
trap 'rm -f "$constraints"' EXIT
# the old libraries choose their own file system and serialisation packages
grep --invert-match --extended-regexp \
  '^(transformers|huggingface_hub|datasets|fsspec|dill|multiprocess|hf-xet|tokenizers)==' \
  constraints.txt > "$constraints"
cat >> "$constraints" <<'PINS'
transformers==5.17.0
huggingface_hub==1.31.0
datasets==5.0.0
PINS

if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  # torch first: a plain `torch` would pull gigabytes of CUDA packages
  $pip --constraint "$constraints" torch
fi
$pip --constraint "$constraints" --editable . pytest pytest-timeout
"$venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

for name in ("torch", "transformers", "huggingface_hub", "datasets", "evaluate"):
    print(name, version(name))
PYTHON
OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest --quiet \
  tests/test_loopback_hub.py tests/test_publishing.py tests/test_hub.py tests/test_cards.py \
  tests/test_card_tables.py tests/test_dataset_staging.py tests/test_metric_on_tables.py \
  tests/test_verification.py tests/test_hub_roundtrip.py
