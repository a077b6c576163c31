#!/usr/bin/env bash
# Ends the SLURM that start.sh started in a folder, its jobs first; leaves the folder and its logs.
#
#   bash tests/slurm/stop.sh FOLDER
set -euo pipefail
. "$(dirname "$0")/daemons.sh"
[ $# = 1 ] || fail "expected one argument, the folder"
[ -d "$1" ] || fail "there is no folder $1"
dir=$(cd "$1" && pwd)
export SLURM_CONF=$dir/slurm.conf
if runs "$dir" slurmctld && runs "$dir" slurmd; then
  timeout 20 scancel --quiet --user="$(id -un)" || true
  until=$((SECONDS + 20)) # more than KillWait
  while [ $SECONDS -lt $until ] && [ -n "$(timeout 10 squeue --noheader 2>/dev/null)" ]; do
    sleep 0.2
  done
fi
stop_all "$dir"
