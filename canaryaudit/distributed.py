"""The processes of one job, started by ``torchrun``.

Rank 0 reads the command line, holds the run directory, and does all file I/O and logging. The other ranks are workers:
they wait for its tasks, run their share with the same code, and access no files. Tensors are sent as safetensors and
facts as JSON; nothing is pickled.
"""

import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors import numpy as arrays_as
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from canaryaudit import environment
from canaryaudit.errors import ModelError, PeerLost

_MOST_WAIT = timedelta(minutes=30)
"""Timeout of one exchange. Workers wait for the next task without limit, since rank 0's other work may take longer."""
_JOIN_SECONDS = 600.0
_POLL_SECONDS = 0.02
# PyTorch's messages for a lost connection; most of these errors have no specific type.
_LOST = re.compile(r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|socket", re.IGNORECASE)


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """A task that rank 0 shares with the workers.

    Attributes:
        name: The kind of task.
        tensors: By name, on the CPU.
        facts: Values that JSON can represent.
    """

    name: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class ProcessGroup:
    """A group of processes that work together; by default a single process.

    Attributes:
        rank: This process's rank, from 0.
        size: Number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._store: Store | None = None
        self._num_tasks = 0

    # --- tasks

    def share(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Send a task to the workers; rank 0 must then run the same task.

        Args:
            name: The task's name in ``run_worker``.
            tensors: By name.
            facts: Values that JSON can represent.

        Raises:
            PeerLost: Another process ended.
        """
        if self.size == 1:
            return
        with self.together():
            store = self._joined()
            payload = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
            store.set(f"task/{self._num_tasks}", json.dumps([name, len(payload), facts]))
            self._open_group(store)
            self._num_tasks += 1
            dist.broadcast(torch.frombuffer(bytearray(payload), dtype=torch.uint8), 0)

    def next_task(self) -> Task | None:
        """Wait for rank 0's next task without a time limit; None if there are no more tasks."""
        store, key = self._joined(), f"task/{self._num_tasks}"
        self._wait_for(store, key)
        name, size, facts = json.loads(store.get(key))
        if name == "":
            return None
        self._open_group(store)
        self._num_tasks += 1
        payload = torch.empty(size, dtype=torch.uint8)
        dist.broadcast(payload, 0)
        # Cloned into memory aligned as on rank 0: alignment changes how some libraries' matrix products round.
        return Task(name, {key: value.clone() for key, value in load(payload.numpy().tobytes()).items()}, facts)

    def dismiss(self) -> None:
        """Tell the workers that there are no more tasks."""
        if self.size == 1:
            return
        with self.together():
            self._joined().set(f"task/{self._num_tasks}", json.dumps(["", 0, {}]))
        self.leave()

    def leave(self) -> None:
        """Leave the process group."""
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()

    def reports_errors(self) -> bool:
        """Return whether this process prints the error message: only the first process that asks."""
        if self._store is None:
            return True
        try:
            return self._store.add("spoken", 1) == 1
        except RuntimeError:  # The store ended with rank 0.
            return self.rank == 0

    # --- work in pieces

    def map_tasks(
        self,
        name: str,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        piece: Callable[[int], Arrays],
        indices: Sequence[int],
    ) -> Iterator[Arrays]:
        """Run independent pieces of work, assigned to the processes in turn.

        Args:
            name: The task's name in ``run_worker``, which calls ``run_tasks`` with the same ``piece``.
            tensors: Tensors that a piece depends on.
            facts: Other values that it depends on, which JSON can represent.
            piece: Computes one piece; the result must not depend on the process.
            indices: The pieces to compute.

        Yields:
            The results, in the order of ``indices``.

        Raises:
            PeerLost: Another process ended.
        """
        if self.size == 1 or len(indices) <= 1:
            yield from map(piece, indices)
            return
        self.share(name, tensors, {**facts, "indices": list(indices)})
        for turn, index in enumerate(indices):
            yield self._received(turn % self.size) if turn % self.size else piece(index)

    def run_tasks(self, piece: Callable[[int], Arrays], indices: Sequence[int]) -> None:
        """Compute this process's pieces of a task, and send the results to rank 0."""
        sent: list[tuple[dist.Work | None, Tensor]] = []
        for index in indices[self.rank :: self.size]:
            contents = {key: np.ascontiguousarray(array) for key, array in piece(index).items()}
            payload = torch.frombuffer(bytearray(arrays_as.save(contents)), dtype=torch.uint8)
            _wait(sent)  # One result may be in transit while the next is computed.
            sent = [(dist.isend(part, 0), part) for part in (torch.tensor([len(payload)]), payload)]
        _wait(sent)

    def _received(self, rank: int) -> Arrays:
        with self.together():
            size = torch.empty(1, dtype=torch.int64)
            dist.recv(size, rank)
            payload = torch.empty(int(size), dtype=torch.uint8)
            dist.recv(payload, rank)
        return arrays_as.load(payload.numpy().tobytes())

    # --- collective operations; no-ops for a single process

    def broadcast(self, tensor: Tensor) -> None:
        """Replace a tensor by rank 0's, in place."""
        if self.size > 1:
            dist.broadcast(tensor.view(torch.uint8), 0)

    def total(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def part(self, count: int) -> slice:
        """Return this process's contiguous share of ``count`` rows; shares differ by at most one row."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def data_parallel(self, model: nn.Module) -> nn.Module:
        """Return the model wrapped to average gradients over all processes in the backward pass."""
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def device(self, kind: str) -> torch.device:
        """Return this process's device: each process has a separate accelerator.

        Raises:
            ModelError: This machine has more processes than accelerators.
        """
        if kind == "cuda" and self.size > 1:
            local_rank, available = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if local_rank >= available:
                raise ModelError(
                    f"process {local_rank + 1} on this machine finds {available} GPUs: expected one per process; start "
                    f"fewer processes (torchrun --nproc-per-node {available}), or use --device cpu"
                )
            torch.cuda.set_device(local_rank)
        return torch.device(kind)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Turn the errors of a lost connection into one line.

        Raises:
            PeerLost: Another process ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and (isinstance(error, dist.DistError) or _LOST.search(str(error))):
                raise PeerLost from error
            raise

    # --- rendezvous

    def _joined(self) -> Store:
        """Return the store of this job's current processes, after waiting for all of them.

        ``torchrun`` keeps its store over restarts, with the entries of processes that have ended. So each worker writes
        a random token, and rank 0 answers with a random name. Only current processes write under that name.
        """
        if self._store is None:
            server = next(rendezvous("env://", timeout=_MOST_WAIT))[0]
            self._store = self._gather(server) if self.rank == 0 else self._join(server)
        return self._store

    def _gather(self, server: Store) -> Store:
        name = secrets.token_hex(8)
        store = PrefixStore(name, server)
        deadline = time.monotonic() + _JOIN_SECONDS
        answered: set[bytes] = set()
        while not store.check([f"here/{rank}" for rank in range(1, self.size)]):
            for rank in range(1, self.size):
                if server.check([f"token/{rank}"]) and (token := server.get(f"token/{rank}")) not in answered:
                    server.set(f"answer/{token.decode()}", name)
                    answered.add(token)
            if time.monotonic() > deadline:
                raise PeerLost
            time.sleep(_POLL_SECONDS)
        return store

    def _join(self, server: Store) -> Store:
        token = secrets.token_hex(8)
        server.set(f"token/{self.rank}", token)
        self._wait_for(server, f"answer/{token}")
        store = PrefixStore(server.get(f"answer/{token}").decode(), server)
        store.set(f"here/{self.rank}", "")
        return store

    def _wait_for(self, store: Store, key: str) -> None:
        # Not store.wait, which times out and ignores signals.
        while not store.check([key]):
            time.sleep(_POLL_SECONDS)

    def _open_group(self, store: Store) -> None:
        if dist.is_initialized():
            return
        # NCCL starts with the first tensor on an accelerator, so never with --device cpu.
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("group", store), rank=self.rank, world_size=self.size, timeout=_MOST_WAIT
        )


def _wait(sent: Sequence[tuple[dist.Work | None, Tensor]]) -> None:
    for work, _ in sent:
        if work is not None:
            work.wait()


SINGLE_PROCESS = ProcessGroup()


@cache
def process_group() -> ProcessGroup:
    """Return the process group of this job, the same object on every call."""
    return ProcessGroup(environment.rank(), environment.num_processes())
