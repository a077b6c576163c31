# Sourced by start.sh and stop.sh: SLURM's daemons in a folder, by their pid files.

PATH=$PATH:/usr/sbin:/sbin # where Debian has the daemons, and a user's PATH does not

fail() {
  echo "error: $1" >&2
  exit 1
}

# lives DIR DAEMON PID: whether that process is this folder's daemon. The number may be another process's by now.
lives() {
  [ -n "$3" ] && {
    [ "$(cat "/proc/$3/comm")" = "$2" ] && tr '\0' '\n' <"/proc/$3/environ" | grep -qxF "SLURM_CONF=$1/slurm.conf"
  } 2>/dev/null
}

# runs DIR NAME: whether the daemon of that pid file lives; NAME is DAEMON or DAEMON.NODE.
runs() {
  lives "$1" "${2%%.*}" "$(cat "$1/$2.pid" 2>/dev/null)"
}

# stop_all DIR: asks each daemon to end, and kills what does not within ten seconds.
stop_all() {
  local file daemon pid until
  for file in "$1"/slurmd.*.pid "$1/slurmctld.pid" "$1/munged.pid"; do
    daemon=$(basename "$file" .pid)
    daemon=${daemon%%.*}
    pid=$(cat "$file" 2>/dev/null) || continue
    until=$((SECONDS + 10))
    lives "$1" "$daemon" "$pid" && kill "$pid" # which removes the pid file at once, and ends later
    while lives "$1" "$daemon" "$pid"; do
      [ $SECONDS -lt $until ] || kill -9 "$pid" || true
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
