#!/usr/bin/env bash
# Lint, types and tests, from a bare machine: installs the locked development requirements into .venv, then checks all.
#
#   bash scripts/test.sh           everything, as CI runs it, but for the comparison with other libraries
#   bash scripts/test.sh --fast    leaves out the end-to-end runs and all other slow tests
#   bash scripts/test.sh --peers   only that comparison, and the notebooks: adds torch, transformers, timm, onnxruntime, a kernel
#   bash scripts/test.sh --beam    only packing by Apache Beam, in .venv-beam: Beam wants older packages than the lock's
#   bash scripts/test.sh --share   only trackers, the demo and the documentation site, in .venv-share
#   bash scripts/test.sh --scale   only compilation for TPUs, in .venv-scale: with libtpu installed, JAX looks for a TPU
#   bash scripts/test.sh ARGS      further arguments go to pytest
#
# Tests on a real SLURM and in a real browser need Debian's packages (`bash .ci/packages.sh`, as root); what is left out for
# want of them is named at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
if [ "${1:-}" = --beam ]; then
  shift
  VENV=${BEAM_VENV:-.venv-beam}
  install_lock requirements-beam.txt "pytest>=8.4,<10"
  exec python -m pytest tests/beam "$@"
fi
if [ "${1:-}" = --share ]; then
  shift
  VENV=${SHARE_VENV:-.venv-share}
  install_lock requirements-share.txt
  command -v chromium >/dev/null || set -- -m "not browser" "$@"
  exec python -m pytest tests/share "$@"
fi
if [ "${1:-}" = --scale ]; then
  shift
  VENV=${SCALE_VENV:-.venv-scale}
  install_lock requirements-dev.lock
  python -m pip install --quiet --disable-pip-version-check -c requirements-dev.lock -c requirements-scale.txt '.[tpu-aot]'
  exec python -m pytest tests/bench/test_topology.py tests/bench/test_ahead.py -m scale --numprocesses=auto --maxprocesses=8 "$@"
fi
install_lock requirements-dev.lock

marks=("not scale") # of pytest: what to leave out
left_out=(
  "tests/peers, the comparison with transformers, timm and onnxruntime, and the notebooks (bash scripts/test.sh --peers)"
  "tests/beam, packing by Apache Beam (bash scripts/test.sh --beam)"
  "tests/share, trackers, the demo and the documentation site (bash scripts/test.sh --share)"
  "tests of mark scale, compilation for TPUs (bash scripts/test.sh --scale)"
)

# needs MARK WHAT PROGRAM...: leaves out the tests of a mark where one of the programs is not installed.
needs() {
  local mark=$1 what=$2 program
  shift 2
  for program in "$@"; do
    if ! PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null; then
      marks+=("not $mark")
      left_out+=("$what: there is no $program (bash .ci/packages.sh, as root)")
      return
    fi
  done
}

case "${1:-}" in
  --fast)
    marks+=("not slow" "not slurm" "not browser")
    left_out+=("the end-to-end runs, SLURM's and the browser's among them, and other slow tests (bash scripts/test.sh)")
    shift
    ;;
  --peers)
    shift
    install_lock requirements-peers.txt -c requirements-dev.lock
    exec python -m pytest tests/peers "$@"
    ;;
  *)
    needs slurm "tests of mark slurm, a sweep on a real SLURM" munged slurmctld slurmd sbatch srun
    needs browser "tests of mark browser, the results page in a real browser" chromium
    ;;
esac
select=(-m "$(printf ' and %s' "${marks[@]}" | cut -c 6-)")

echo "== ruff"
ruff check .
ruff format --check .
echo "== mypy"
mypy
echo "== pytest"
# A test process per core, each with whole files: what a file prepares is prepared once. The long ones come first
# (tests/conftest.py). With one process more, eight fake devices of one test once waited over 40 s for one another, and XLA gave up.
python -m pytest --numprocesses=auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder \
  --ignore=tests/peers --ignore=tests/beam --ignore=tests/share \
  "${select[@]}" "$@"
printf 'left out: %s\n' "${left_out[@]}"
