#!/usr/bin/env bash
# Builds the documentation site into site/, strictly: a broken link or anchor is an error. Open site/index.html.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/env.sh
VENV=${SHARE_VENV:-.venv-share}
install_lock requirements-share.txt
JAX_PLATFORMS=cpu NO_MKDOCS_2_WARNING=1 exec python -m mkdocs build --strict "$@"
