"""The processes of one job, as ``torchrun`` starts them.

The first one, rank 0, leads: it alone reads the command line, holds the run directory, writes files and speaks.
The others follow: they wait for its tasks, take their share with the same code, and touch no file. Tensors go
between them as safetensors and facts as JSON; nothing is pickled.
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
"""For one exchange. What the leader does by itself may take longer: for the next task followers wait without limit."""
_JOIN_SECONDS = 600.0
_POLL_SECONDS = 0.02
# As PyTorch says it, where the other end of a connection is gone; most of its errors have no type of their own.
_LOST = re.compile(r"gloo|nccl|connection (was )?(closed|reset|refused)|broken pipe|socket", re.IGNORECASE)


Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """What a leader asks its followers to do with it.

    Attributes:
        name: What to do.
        tensors: By name, on the processor.
        facts: What JSON can hold.
    """

    name: str
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class ProcessGroup:
    """A process's place among those that work together; by default it is alone, and needs nobody.

    Attributes:
        rank: This process's number, from 0.
        size: Number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._store: Store | None = None
        self._num_tasks = 0

    # --- tasks

    def share(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Let the followers begin a task; the leader itself has to go on with the same one.

        Args:
            name: What ``run_worker`` knows the task by.
            tensors: By name.
            facts: What JSON can hold.

        Raises:
            PeerLost: Another process has ended.
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
        """Wait for the leader's next task, however long that takes; None when there is none any more."""
        store, key = self._joined(), f"task/{self._num_tasks}"
        self._wait_for(store, key)
        name, size, facts = json.loads(store.get(key))
        if name == "":
            return None
        self._open_group(store)
        self._num_tasks += 1
        payload = torch.empty(size, dtype=torch.uint8)
        dist.broadcast(payload, 0)
        # Cloned into memory aligned as the leader's own: some libraries' matrix products round otherwise elsewhere.
        return Task(name, {key: value.clone() for key, value in load(payload.numpy().tobytes()).items()}, facts)

    def dismiss(self) -> None:
        """Tell the followers that the work is done; they may have waited in vain."""
        if self.size == 1:
            return
        with self.together():
            self._joined().set(f"task/{self._num_tasks}", json.dumps(["", 0, {}]))
        self.leave()

    def leave(self) -> None:
        """Take leave of the others."""
        if dist.is_initialized():
            with suppress(RuntimeError):
                dist.destroy_process_group()

    def speaks(self) -> bool:
        """Tell whether this process is the one to say what went wrong: the first that asks, and nobody after it."""
        if self._store is None:
            return True
        try:
            return self._store.add("spoken", 1) == 1
        except RuntimeError:  # With the store the leader is gone.
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
        """Do pieces of work that need nothing of each other, in turn on all processes.

        Args:
            name: What ``run_worker`` knows the work by; there it comes with the same ``piece`` to ``run_tasks``.
            tensors: What a piece depends on.
            facts: What else it depends on, and JSON can hold.
            piece: Does one; its result may not depend on where that is.
            indices: Which pieces.

        Yields:
            Each piece's result, in the order of ``indices``.

        Raises:
            PeerLost: Another process has ended.
        """
        if self.size == 1 or len(indices) <= 1:
            yield from map(piece, indices)
            return
        self.share(name, tensors, {**facts, "indices": list(indices)})
        for turn, index in enumerate(indices):
            yield self._received(turn % self.size) if turn % self.size else piece(index)

    def run_tasks(self, piece: Callable[[int], Arrays], indices: Sequence[int]) -> None:
        """Do this process's pieces of what the leader spreads, and send it the results."""
        sent: list[tuple[dist.Work | None, Tensor]] = []
        for index in indices[self.rank :: self.size]:
            contents = {key: np.ascontiguousarray(own) for key, own in piece(index).items()}
            payload = torch.frombuffer(bytearray(arrays_as.save(contents)), dtype=torch.uint8)
            _wait(sent)  # One result may be on its way while the next is made.
            sent = [(dist.isend(part, 0), part) for part in (torch.tensor([len(payload)]), payload)]
        _wait(sent)

    def _received(self, rank: int) -> Arrays:
        with self.together():
            size = torch.empty(1, dtype=torch.int64)
            dist.recv(size, rank)
            payload = torch.empty(int(size), dtype=torch.uint8)
            dist.recv(payload, rank)
        return arrays_as.load(payload.numpy().tobytes())

    # --- what all do at once; nothing at all for a process that is alone

    def broadcast(self, tensor: Tensor) -> None:
        """Give everybody the leader's tensor, in place."""
        if self.size > 1:
            dist.broadcast(tensor.view(torch.uint8), 0)

    def total(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        if self.size > 1:
            dist.all_reduce(tensor)

    def part(self, count: int) -> slice:
        """Return which of ``count`` rows are this process's: neighbors, as many as others have, or one more."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def data_parallel(self, model: nn.Module) -> nn.Module:
        """Return the model so wrapped that a backward pass leaves everybody the mean of all gradients."""
        if self.size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def device(self, kind: str) -> torch.device:
        """Return this process's device: of several accelerators each process has its own.

        Raises:
            ModelError: There are more processes on this machine than accelerators.
        """
        if kind == "cuda" and self.size > 1:
            place, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
            if place >= there:
                raise ModelError(
                    f"process {place + 1} on this machine finds {there} GPUs: expected one for each process; start "
                    f"fewer (torchrun --nproc-per-node {there}), or use --device cpu"
                )
            torch.cuda.set_device(place)
        return torch.device(kind)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Turn the errors of an exchange whose other end is gone into one line.

        Raises:
            PeerLost: Another process has ended.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size > 1 and (isinstance(error, dist.DistError) or _LOST.search(str(error))):
                raise PeerLost from error
            raise

    # --- inside

    def _joined(self) -> Store:
        """Return this job's own store, after waiting for all others to have come.

        ``torchrun`` keeps its store over restarts, with all that processes that are gone wrote there. So a follower
        shows a token that it made, the leader answers with a name that it made, and whatever is under that name
        was written by those who live now.
        """
        if self._store is None:
            server = next(rendezvous("env://", timeout=_MOST_WAIT))[0]
            self._store = self._gather(server) if self.rank == 0 else self._come(server)
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

    def _come(self, server: Store) -> Store:
        token = secrets.token_hex(8)
        server.set(f"token/{self.rank}", token)
        self._wait_for(server, f"answer/{token}")
        store = PrefixStore(server.get(f"answer/{token}").decode(), server)
        store.set(f"here/{self.rank}", "")
        return store

    def _wait_for(self, store: Store, key: str) -> None:
        # Not store.wait, which would give up, and which no signal interrupts.
        while not store.check([key]):
            time.sleep(_POLL_SECONDS)

    def _open_group(self, store: Store) -> None:
        if dist.is_initialized():
            return
        # NCCL begins with the first tensor on an accelerator: with --device cpu there is none.
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
    """Return this process's place in its job, which is the same for as long as it runs."""
    return ProcessGroup(environment.rank(), environment.num_processes())
