#!/usr/bin/env bash
# Lint, types and tests, from a bare machine: installs the locked development requirements into .venv, then checks all.
#
#   bash scripts/test.sh           everything, as CI runs it
#   bash scripts/test.sh --fast    leaves out the end-to-end runs
#   bash scripts/test.sh ARGS      further arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
install_lock requirements-dev.lock
select=()
if [ "${1:-}" = --fast ]; then
  select=(-m "not slow")
  shift
fi
echo "== ruff"
ruff check .
ruff format --check .
echo "== mypy"
mypy
echo "== pytest"
python -m pytest "${select[@]}" "$@"
