#!/usr/bin/env bash
# Starts a SLURM on this machine for tests: one node of four CPUs, where jobs of the partition urgent preempt the others, and two
# more "nodes" of two CPUs, n1 and n2, in the partition pair. It needs Debian's packages slurmctld, slurmd, slurm-client and munge, no root and no systemd. All it writes lies in FOLDER, its
# ports are free ones, and no setting of the machine is read or changed: several of them, and the machine's own, do not meet.
#
#   bash tests/slurm/start.sh FOLDER       does nothing where it runs already; FOLDER's path has to be short (sockets)
#   export SLURM_CONF=FOLDER/slurm.conf    then sbatch, squeue and the rest talk to it
#   bash tests/slurm/stop.sh FOLDER
set -euo pipefail
. "$(dirname "$0")/daemons.sh"
[ $# = 1 ] || fail "expected one argument, the folder"
mkdir -p "$1"
dir=$(cd "$1" && pwd)
conf=$dir/slurm.conf
[ ${#dir} -le 60 ] || fail "the path $dir is too long: SLURM makes sockets in it, whose paths have 108 characters at most"
for program in munged slurmctld slurmd sinfo sbatch srun; do
  command -v "$program" >/dev/null ||
    fail "$program is not installed: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
done

export SLURM_CONF=$conf
host=$(uname -n)
node=${host%%.*}
if runs "$dir" munged && runs "$dir" slurmctld && runs "$dir" "slurmd.$node" && runs "$dir" slurmd.n1 && runs "$dir" slurmd.n2; then
  echo "SLURM runs already in $dir"
  exit 0
fi
stop_all "$dir" # what an earlier start left
give_up() {
  trap - ERR
  tails "$dir"
  stop_all "$dir"
  fail "$1; above are the ends of its logs"
}
trap 'give_up "a daemon of SLURM did not start"' ERR

# Munge, with a key and a socket of our own. --force: as root, or in a folder closed to others, it only warns.
[ -s "$dir/munge.key" ] || (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
  --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" 2>"$dir/munged.err"

ports=($(python3 -c '
import socket
held = [socket.socket() for _ in range(4)]
for s in held: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in held))'))
user=$(id -un)
mkdir -p "$dir/state" "$dir/spool.$node" "$dir/spool.n1" "$dir/spool.n2"
cat >"$conf" <<END
ClusterName=test
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldPidFile=$dir/slurmctld.pid
SlurmctldLogFile=$dir/slurmctld.log
StateSaveLocation=$dir/state
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmdLogFile=$dir/slurmd.%n.log
SlurmdSpoolDir=$dir/spool.%n
NodeName=$node NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=4
NodeName=n1 NodeHostname=$node NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=2
NodeName=n2 NodeHostname=$node NodeAddr=127.0.0.1 Port=${ports[3]} CPUs=2
PartitionName=debug Nodes=$node Default=YES PriorityTier=1 GraceTime=5 State=UP
PartitionName=urgent Nodes=$node PriorityTier=2 State=UP
PartitionName=pair Nodes=n1,n2 State=UP
END
slurmctld -c >"$dir/slurmctld.err" 2>&1 # -c: the jobs of an earlier start are gone
for name in "$node" n1 n2; do
  slurmd -N "$name" >"$dir/slurmd.$name.err" 2>&1
done

until=$((SECONDS + 60))
while [ "$(timeout 10 sinfo --noheader --partition=debug,pair --format=%T 2>"$dir/sinfo.err" | sort -u)" != idle ]; do
  [ $SECONDS -lt $until ] || give_up "SLURM's nodes were not idle within a minute"
  sleep 0.2
done
echo "SLURM runs in $dir: export SLURM_CONF=$conf"
