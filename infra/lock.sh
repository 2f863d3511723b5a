#!/usr/bin/env bash
# Resolves pyproject.toml afresh in a throw-away environment and writes names and versions only.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check ".[dev]"
{
    echo "# Exact versions for Linux x86-64, Python 3.11. Written by \`make lock\`; do not edit."
    "$folder/bin/python" -m pip freeze --exclude i2vgen-ray --exclude pip --exclude setuptools
} >requirements.lock
wc -l requirements.lock
