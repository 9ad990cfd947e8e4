"""Tests of canaryaudit.distributed in one process; tests/cli/test_torchrun.py has several."""

import threading

import numpy as np
import pytest
import torch
import torch.distributed as dist

from canaryaudit import environment
from canaryaudit.distributed import SINGLE_PROCESS, ProcessGroup
from canaryaudit.errors import ModelError, PeerLost
from canaryaudit.exposure.encoded_space import EncodedSpace
from canaryaudit.exposure.scoring import packed_state, unpacked_state
from tests.fakes import TableModel, encoded


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("count", [0, 1, 3, 8, 32])
def test_every_row_is_somebodys_and_nobody_has_two_more_than_another(size: int, count: int) -> None:
    parts = [range(count)[ProcessGroup(rank, size).part(count)] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(count))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_a_process_that_is_alone_needs_nobody() -> None:
    tensor = torch.arange(3)
    SINGLE_PROCESS.broadcast(tensor)
    SINGLE_PROCESS.total(tensor)
    SINGLE_PROCESS.share("train", {}, {})
    SINGLE_PROCESS.dismiss()
    assert torch.equal(tensor, torch.arange(3))
    model = torch.nn.Linear(1, 1)
    assert SINGLE_PROCESS.data_parallel(model) is model
    assert SINGLE_PROCESS.device("cuda") == torch.device("cuda")
    done = SINGLE_PROCESS.map_tasks("costs", {}, {}, lambda index: {"square": np.array(index**2)}, [3, 1, 2])
    assert [int(own["square"]) for own in done] == [9, 1, 4]
    assert not dist.is_initialized()


def test_only_torchrun_makes_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (environment.rank(), environment.num_processes()) == (0, 1), "as other launchers leave them behind"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert (environment.rank(), environment.num_processes()) == (1, 2)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert (environment.rank(), environment.num_processes()) == (0, 1)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ModelError, match="process 3 on this machine finds 2 GPUs: expected one per process"):
        ProcessGroup(2, 4).device("cuda")
    assert ProcessGroup(2, 4).device("cpu") == torch.device("cpu")


# --- how processes find each other ----------------------------------------------------------------------


def meet(server: dist.Store, size: int) -> list[dist.Store]:
    """Let a leader and its followers, each in a thread, come together at a store."""
    found: list[dist.Store] = [None] * size
    processes = [ProcessGroup(rank, size) for rank in range(size)]

    def come(own: ProcessGroup) -> None:
        found[own.rank] = own._gather(server) if own.rank == 0 else own._join(server)

    threads = [threading.Thread(target=come, args=(own,), daemon=True) for own in reversed(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return found


@pytest.mark.parametrize("size", [2, 4])
def test_processes_that_were_restarted_do_not_take_the_dead_ones_words_for_theirs(size: int) -> None:
    server = dist.HashStore()
    before = meet(server, size)
    before[0].set("task/0", "of the dead")
    after = meet(server, size)  # torchrun keeps its store
    assert not any(own.check(["task/0"]) for own in after)
    after[0].set("task/0", "of the living")
    assert [own.get("task/0") for own in after] == [b"of the living"] * size


def test_a_leader_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("canaryaudit.distributed._JOIN_SECONDS", 0.1)
    with pytest.raises(PeerLost, match="did not join in time; finished work is kept, rerun the command to resume"):
        ProcessGroup(0, 2)._gather(dist.HashStore())


def test_one_process_speaks() -> None:
    processes = [ProcessGroup(rank, 3) for rank in range(3)]
    assert all(own.reports_errors() for own in processes), "nobody to ask yet"
    for own, store in zip(processes, meet(dist.HashStore(), 3), strict=True):
        own._store = store
    assert [own.reports_errors() for own in (processes[1], processes[0], processes[2], processes[1])] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "message",
    [
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:41013",
        "NCCL error: remote process exited or there was a network error",
        "Connection reset by peer",
    ],
)
def test_a_lost_connection_is_told_in_one_line(message: str) -> None:
    with pytest.raises(PeerLost), ProcessGroup(0, 2).together():
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="pair.cc|NCCL|reset"), SINGLE_PROCESS.together():
        raise RuntimeError(message)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"), ProcessGroup(0, 2).together():
        raise RuntimeError("shape mismatch")


# --- what goes from one to the other --------------------------------------------------------------------


def test_a_space_and_a_state_are_the_same_after_the_journey() -> None:
    model = TableModel("\n -0123456789")
    space, start = encoded("{digits:3}-{digits:20}", model)
    tensors, facts = space.packed()
    again = EncodedSpace.unpacked(tensors, facts)
    assert (again.size, again.accept, again.max_length) == (10**23, space.accept, space.max_length)
    assert all(np.array_equal(getattr(again, name), getattr(space, name)) for name in ("next_node", "shares"))
    state = unpacked_state(packed_state(start), torch.device("cpu"))
    assert torch.equal(state.log2_probs, start.log2_probs)
    assert all(torch.equal(a, b) for a, b in zip(state.cache, start.cache, strict=True))
