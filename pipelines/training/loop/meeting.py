"""How the workers of a training find each other: at a store that listens on one address only.

PyTorch's store for that (`TCPStore`) listens on all of the machine's addresses and asks for no
password. Here it is handed a socket that is bound already, to the address by which the cluster
knows the first worker's node: on a local Ray that is 127.0.0.1, in a pod the pod's own.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Any

import psutil
import ray
import torch.distributed as dist
from ray.train.torch import TorchConfig
from ray.train.torch.config import _set_torch_distributed_env_vars, _TorchBackend

from pipelines.cluster.access import is_loopback

#: Gloo and NCCL open ports of their own, on the interface that these name.
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_kept: list[dist.TCPStore] = []  # the first worker's, for as long as its process


class MeetingConfig(TorchConfig):
    """Ray Train's configuration of PyTorch, for workers that meet at a bound store."""

    @property
    def backend_cls(self) -> type[MeetingBackend]:
        return MeetingBackend


class MeetingBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        count = len(worker_group)
        timeout = timedelta(seconds=backend_config.timeout_s)
        host, port = worker_group.execute_single(0, open_store, count, timeout)
        worker_group.execute(_set_torch_distributed_env_vars)
        waiting = [
            worker_group.execute_single_async(
                rank, join, backend_config.backend, host, port, rank, count, timeout
            )
            for rank in range(count)
        ]
        ray.get(waiting)


def open_store(count: int, timeout: timedelta) -> tuple[str, int]:
    """Starts the store in this process, the first worker's; gives where it listens."""
    host = ray.util.get_node_ip_address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as bound:
        bound.bind((host, 0))
        bound.listen(count + 16)
        port = int(bound.getsockname()[1])
        store = dist.TCPStore(
            host,
            port,
            count,
            is_master=True,
            timeout=timeout,
            wait_for_workers=False,
            master_listen_fd=bound.detach(),
        )
    _kept[:] = [store]
    return host, port


def join(backend: str, host: str, port: int, rank: int, count: int, timeout: timedelta) -> None:
    """Makes this process a member of the group."""
    if is_loopback(host) and is_loopback(ray.util.get_node_ip_address()):
        for variable in INTERFACE_VARIABLES:
            os.environ.setdefault(variable, loopback_interface())
    store = dist.TCPStore(host, port, count, is_master=False, timeout=timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=timeout)


def loopback_interface() -> str:
    """Its name, `lo` on Linux. Raises StopIteration on a machine that has none."""
    return next(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(address.address == "127.0.0.1" for address in addresses)
    )
