#!/usr/bin/env bash
# OpenCV's wheel needs two shared libraries that slim images lack; with the word `tests`, also what
# the tests start: PostgreSQL, Prometheus, and Chromium to look at pages. Nothing is done where they
# are.
set -euo pipefail

missing=()
ldconfig -p 2>/dev/null | grep -q 'libGL\.so\.1' || missing+=(libgl1)
ldconfig -p 2>/dev/null | grep -q 'libgthread-2\.0\.so\.0' || missing+=(libglib2.0-0)
if [ "${1:-}" = tests ]; then
    command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null ||
        missing+=(postgresql)
    command -v prometheus >/dev/null || missing+=(prometheus)
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null || missing+=(chromium)
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        "${missing[@]}" >/dev/null
else
    echo "system packages are missing; install them first: ${missing[*]} (Debian names)" >&2
    exit 1
fi
