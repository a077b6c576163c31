# Sourced by quickstart.sh and test.sh: makes .venv beside the code and installs a lock file into it, once per lock, and this
# checkout itself (as `pip install -e .` does), so that `import vit_jax` works from any folder.
# PYTHON names another interpreter; VENV another folder.
#
#   . scripts/env.sh; install_lock requirements.lock [further pip options]

install_lock() {
  local lock=$1 python=${PYTHON:-python3} stamp
  shift
  VENV=${VENV:-.venv}
  if [ ! -x "$VENV/bin/python" ]; then
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "error: $python is $("$python" --version 2>&1); vit_jax needs Python 3.11 or newer. Set PYTHON=/path/to/python3.11" >&2
      exit 2
    fi
    echo "making $VENV with $("$python" --version)"
    "$python" -m venv "$VENV"
  fi
  stamp=$VENV/.installed-$(basename "$lock")
  if ! cmp -s "$lock" "$stamp"; then
    echo "installing $lock into $VENV (a minute or two; 1.3 to 1.6 GB on disk)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "$lock" "$@"
    cp "$lock" "$stamp"
  fi
  stamp=$VENV/.installed-vit_jax
  if [ "$(cat "$stamp" 2>/dev/null)" != "$PWD" ]; then
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
    printf '%s\n' "$PWD" >"$stamp"
  fi
  export PATH="$PWD/$VENV/bin:$PATH"
}
