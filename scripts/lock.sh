#!/usr/bin/env bash
# Rewrites the lock files from the ranges in requirements*.txt: one file for every supported Python and platform.
# Run it to take up newer releases; commit the result when test.sh passes on it.
set -euo pipefail
cd "$(dirname "$0")/.."
lock() {
  uv pip compile --quiet --upgrade --universal --python-version 3.11 --custom-compile-command "bash scripts/lock.sh" "$@"
}
lock requirements.txt -o requirements.lock
lock requirements-dev.txt -c requirements.lock -o requirements-dev.lock
