"""A process in a cluster: which GPUs are its own under SLURM, and which coordinators others cannot reach."""

import socket

import pytest

from vit_jax.cluster import check_coordinator, first_node, local_devices, visible_gpus
from vit_jax.types import UserError


def task(place=0, tasks="1", node=0, **more):
    return {"SLURM_LOCALID": str(place), "SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NODEID": str(node), **more}


@pytest.mark.parametrize(
    ("environ", "gpus", "expected"),
    [
        ({}, 8, None),  # no SLURM: JAX shows all
        (task(), 0, None),  # no GPU
        (task(), 8, [0, 1, 2, 3, 4, 5, 6, 7]),  # one task a node: JAX would take the first alone
        (task(3, "8(x2)"), 8, [3]),  # one task a GPU, each sees all
        (task(3, "8(x2)", SLURM_GPUS_PER_TASK="1"), 1, [0]),  # each sees its own: JAX would ask for the fourth of one
        (task(3, "8"), 1, [0]),
        (task(1, "2(x4)"), 8, [4, 5, 6, 7]),
        (task(1, "4,2", node=1), 8, [4, 5, 6, 7]),  # the second node has two tasks
        (task(1, "2", SLURM_GPUS_PER_TASK="4"), 4, [0, 1, 2, 3]),
    ],
)
def test_the_gpus_of_a_task(environ, gpus, expected):
    assert local_devices(environ, gpus) == expected


def test_gpus_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"8 GPUs do not divide over 3 tasks.*--ntasks-per-node=1 or =8"):
        local_devices(task(0, "3"), 8)


def test_visible_gpus_are_counted_without_cuda(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == 2
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "4,6,7"}, tmp_path) == 3
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == 0
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == 0


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [("n1", "n1"), ("n1,m2", "n1"), ("n[07-12,20],m1", "n07"), ("gpu-a[3,5]", "gpu-a3"), ("", "")],
)
def test_the_first_node_of_a_list(nodes, expected):
    assert first_node(nodes) == expected


def test_a_name_that_means_each_machine_itself_is_refused(monkeypatch):
    addresses = {"n07": "127.0.1.1", "n08": "10.0.0.8", "v6": "::1"}

    def resolve(host, port):
        if host not in addresses:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (addresses[host], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    two_nodes = {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[07-08]"}
    for coordinator, environ in (("n07:1234", {}), ("v6:1234", {}), ("auto", two_nodes)):
        with pytest.raises(UserError, match=r"which is each machine itself.*hostname -I"):
            check_coordinator(coordinator, environ)
    check_coordinator("n08:1234", {})
    check_coordinator("localhost:1234", {})
    check_coordinator("127.0.0.1:1234", {})
    check_coordinator("[::1]:1234", {})
    check_coordinator("elsewhere:1234", {})  # the connection says what is wrong
    check_coordinator("auto", two_nodes | {"SLURM_JOB_NUM_NODES": "1"})
    check_coordinator("auto", {"SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "n[08-09]"})
