#!/usr/bin/env bash
# Lint, types and tests, from a bare machine: installs the locked development requirements into .venv, then checks all.
#
#   bash scripts/test.sh           everything, as CI runs it, but for the comparison with other libraries
#   bash scripts/test.sh --fast    leaves out the end-to-end runs
#   bash scripts/test.sh --peers   only that comparison: adds torch, transformers and timm to .venv first
#   bash scripts/test.sh --beam    only packing by Apache Beam, in .venv-beam: Beam wants older packages than the lock's
#   bash scripts/test.sh ARGS      further arguments go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
if [ "${1:-}" = --beam ]; then
  shift
  VENV=${BEAM_VENV:-.venv-beam}
  install_lock requirements-beam.txt "pytest>=8.4,<10"
  exec python -m pytest tests/beam "$@"
fi
install_lock requirements-dev.lock
select=()
case "${1:-}" in
  --fast)
    select=(-m "not slow")
    shift
    ;;
  --peers)
    shift
    install_lock requirements-peers.txt -c requirements-dev.lock
    exec python -m pytest tests/peers "$@"
    ;;
esac
echo "== ruff"
ruff check .
ruff format --check .
echo "== mypy"
mypy
echo "== pytest"
python -m pytest --ignore=tests/peers --ignore=tests/beam "${select[@]}" "$@"
echo "left out: tests/peers, the comparison with transformers and timm (bash scripts/test.sh --peers)"
echo "left out: tests/beam, packing by Apache Beam (bash scripts/test.sh --beam)"
