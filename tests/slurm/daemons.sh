# Sourced by start.sh and stop.sh: SLURM's daemons in a folder, by their pid files.

PATH=$PATH:/usr/sbin:/sbin # where Debian has the daemons, and a user's PATH does not

fail() {
  echo "error: $1" >&2
  exit 1
}

# runs DIR DAEMON: whether the daemon of that pid file lives. Its name is compared, as the number may be another's by now.
runs() {
  local pid
  pid=$(cat "$1/$2.pid" 2>/dev/null) && [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] &&
    tr '\0' '\n' <"/proc/$pid/environ" 2>/dev/null | grep -qxF "SLURM_CONF=$1/slurm.conf"
}

# stop_all DIR: asks each daemon to end, and kills what does not within ten seconds.
stop_all() {
  local daemon pid until
  for daemon in slurmd slurmctld munged; do
    runs "$1" "$daemon" || continue
    pid=$(cat "$1/$daemon.pid")
    kill "$pid" 2>/dev/null || true
    until=$((SECONDS + 10))
    while runs "$1" "$daemon"; do
      [ $SECONDS -lt $until ] || kill -9 "$pid" 2>/dev/null || true
      sleep 0.1
    done
  done
}

# tails DIR: the ends of the logs.
tails() {
  local log
  for log in "$1"/*.log "$1"/*.err; do
    [ -s "$log" ] || continue
    echo "== $log" >&2
    tail -n 15 "$log" >&2
  done
}
