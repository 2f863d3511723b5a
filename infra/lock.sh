#!/usr/bin/env bash
# Resolves pyproject.toml afresh, without installing, and writes names and versions only.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --upgrade pip
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --dry-run --ignore-installed --report "$folder/report.json" ".[dev]"
"$folder/venv/bin/python" - "$folder/report.json" >requirements.lock <<'PYTHON'
import json
import sys

report = json.load(open(sys.argv[1]))
found = (item["metadata"] for item in report["install"])
lines = sorted(f"{m['name'].lower()}=={m['version']}" for m in found if m["name"] != "i2vgen-ray")
print("# Exact versions for Linux x86-64, Python 3.11. Written by `make lock`; do not edit.")
print("\n".join(lines))
PYTHON
wc -l requirements.lock
