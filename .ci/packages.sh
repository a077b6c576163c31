#!/usr/bin/env bash
# Installs what some tests need beyond Python, from Debian: SLURM's daemons and a browser. Without root, apt-get or a network
# it says so and succeeds; scripts/test.sh then names the tests it leaves out.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

# install PROGRAM PACKAGE...: unless the program is there.
install() {
  local program=$1
  shift
  if command -v "$program" >/dev/null; then
    return
  fi
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, for want of root or apt-get: $*"
  elif ! { update && apt-get install "${options[@]}" "$@" >/dev/null; }; then
    echo "could not be installed, apt-get says why above: $*"
  fi
}

# The package lists, once.
update() {
  [ -n "${updated:-}" ] || apt-get update --quiet=2
  updated=yes
}

export DEBIAN_FRONTEND=noninteractive
options=(--yes --quiet=2 --no-install-recommends -o APT::Keep-Downloaded-Packages=false)
install slurmctld slurmctld slurmd slurm-client munge
install chromium chromium
