"""Where a process stands in a cluster: the devices that are its own, and whether others can reach its coordinator."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path

from vit_jax.types import UserError

LOCAL = ("localhost", "ip6-localhost")


def visible_gpus(environ: Mapping[str, str], dev: Path = Path("/dev")) -> int:
    """Number of NVIDIA GPUs that this process may see, without starting CUDA."""
    if (listed := environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return len([name for name in listed.split(",") if name.strip() and name.strip() != "-1"])
    return len([path for path in dev.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)])


def local_devices(environ: Mapping[str, str], gpus: int) -> list[int] | None:
    """The GPUs, as places among the visible ones, of a task of SLURM; None where JAX's own rule is right.

    JAX gives task I of a node the GPU I. That is right for one task per GPU where each sees all; it hides all GPUs but the first
    where one task has a node to itself, and fails where SLURM already shows each task its own (`--gpus-per-task=1`).

    Args:
      environ: the environment, with SLURM's variables.
      gpus: number of GPUs that this process sees.

    Raises:
      UserError: the GPUs do not divide over the tasks of the node.
    """
    if "SLURM_LOCALID" not in environ or gpus == 0:
        return None
    place, tasks = int(environ["SLURM_LOCALID"]), _tasks_on_this_node(environ)
    if tasks > 1 and (gpus == 1 or "SLURM_GPUS_PER_TASK" in environ):  # each task sees its own alone
        return [*range(gpus)]
    if gpus % tasks:
        raise UserError(
            f"{gpus} GPUs do not divide over {tasks} tasks of this node; give sbatch --ntasks-per-node=1 or ={gpus}"
        )
    share = gpus // tasks
    return [*range(place * share, (place + 1) * share)]


def check_coordinator(coordinator: str, environ: Mapping[str, str]) -> None:
    """Refuses a coordinator whose name means another machine on every node: all processes would wait for one another.

    Args:
      coordinator: `host:port`, or `auto`, which on SLURM is the first node of the job.
      environ: the environment, with SLURM's variables.

    Raises:
      UserError: the name is not `localhost` and resolves to a loopback address.
    """
    host = coordinator.rpartition(":")[0].strip("[]")
    if coordinator == "auto":
        if int(environ.get("SLURM_JOB_NUM_NODES", "1")) == 1:
            return
        host = first_node(environ.get("SLURM_STEP_NODELIST", environ.get("SLURM_JOB_NODELIST", "")))
    if not host or host in LOCAL or _is_loopback(host):
        return
    try:
        address = socket.getaddrinfo(host, None)[0][4][0]
    except OSError:
        return  # the connection fails, with a message of its own
    if _is_loopback(str(address)):
        raise UserError(
            f"the coordinator {host} resolves to {address}, which is each machine itself, so the processes of other machines "
            "would wait for ever; give the address of process 0 in the network, --coordinator=ADDRESS:PORT (`hostname -I` "
            "prints it), or --coordinator=localhost:PORT if all processes run on this machine"
        )


def first_node(nodes: str) -> str:
    """The first name of SLURM's list: `n[07-12,20],m1` begins with n07."""
    match = re.match(r"([^,\[]*)(?:\[(\d+))?", nodes)
    return f"{match[1]}{match[2] or ''}" if match else ""


def _tasks_on_this_node(environ: Mapping[str, str]) -> int:
    """Number of this step's tasks on this node, from a list such as `4(x2),3`."""
    counts: list[int] = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", environ.get("SLURM_TASKS_PER_NODE", "1")).split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match:
            counts += [int(match[1])] * int(match[2] or 1)
    node = int(environ.get("SLURM_NODEID", "0"))
    return counts[node] if node < len(counts) else 1


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False
