"""Several processes that train one model together: who is who, and what they tell each other.

``torchrun`` starts the processes. Each holds the whole model and reads its share of every batch; gradients are added
up after each step, so that all hold the same weights. The first process alone speaks and writes. In a process that is
alone, everything here does nothing.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from ..errors import ConfigurationError, TrainingError

TIMEOUT_S = 300.0  # until a process that does not answer counts as dead; POCKETVISION_TIMEOUT_S says otherwise
_PATIENCE = timedelta(days=1)  # while the first process checks the data; its death is noticed at once all the same
_patient = list[Any]()  # the group of processes that wait so long, where there is one


class Lost(TrainingError):
    """Another process of this training has ended, or does not answer."""


def world() -> int:
    """Processes that train together; 1: this one is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world() > 1 else 0


def first() -> bool:
    """Whether this is the process that speaks and writes."""
    return rank() == 0


@contextmanager
def joined() -> Iterator[None]:
    """Train with the other processes that torchrun started, for as long as the block runs.

    The process that first meets an error raises it; the others then end with exit code 1 and say nothing. Raises
    ConfigurationError when the environment says that there are others but not where.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or world() > 1:
        yield
        return
    timeout = timedelta(seconds=float(os.environ.get("POCKETVISION_TIMEOUT_S", TIMEOUT_S)))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _reaching():
        try:
            store, number, count = next(iter(rendezvous("env://", timeout=timeout)))
        except ValueError as error:
            raise ConfigurationError(f"WORLD_SIZE is set, but not all else ({error}); start with torchrun") from None
        dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timeout)
        _patient.append(dist.new_group(backend="gloo", timeout=_PATIENCE))
    try:
        yield
        any_of(False)  # nobody leaves while others still work
    except BaseException:
        if not _speaks_first(store):
            raise SystemExit(1) from None
        raise
    finally:
        _patient.clear()
        dist.destroy_process_group()


def _speaks_first(store: Any) -> bool:
    try:
        return store.add("errors", 1) == 1
    except RuntimeError:  # torchrun, which keeps the store, is gone
        return True


@contextmanager
def advising(command: str) -> Iterator[None]:
    """Add to the error about a lost process how to go on."""
    try:
        yield
    except Lost as error:
        raise TrainingError(f"{error}; go on, with any number of processes: {command}") from error


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of gloo and NCCL; dist.DistError is one too
        reason = re.sub(r"^\[\S+\] ", "", str(error)).partition("\n")[0].partition(". ")[0]  # gloo says more than that
        raise Lost(f"another process of this training has ended or does not answer ({reason})") from error


def use_device(device: str) -> None:
    """Give this process a GPU of its own. Raises ConfigurationError where there are not enough."""
    if world() == 1 or device != "cuda":
        return
    number, found = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if number >= found:
        raise ConfigurationError(
            f"more processes than the {found} CUDA devices of this machine; "
            f"nearest valid: --nproc-per-node {found}, or device=cpu"
        )
    torch.cuda.set_device(number)


def from_first(make: Callable[[], bytes]) -> bytes:
    """What ``make`` gives in the first process, however long that takes; the others do not call it."""
    if world() == 1:
        return make()
    data = bytearray(make()) if first() else bytearray()
    group = _patient[0] if _patient else None
    with _reaching():
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0, group=group)
        content = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, 0, group=group)
    return content.numpy().tobytes()


def same_as_first(tensors: Iterable[Tensor]) -> None:
    """Copy the first process's values to all others."""
    if world() > 1:
        with _reaching():
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole, 0)
                tensor.copy_(whole)


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Of each flag, whether it is set in any process."""
    if world() == 1:
        return flags
    values = torch.tensor(flags, dtype=torch.int32)
    with _reaching():
        dist.all_reduce(values, dist.ReduceOp.MAX)
    return tuple(bool(value) for value in values.tolist())


def number_of_first(number: int) -> int:
    """The first process's ``number``."""
    value = torch.tensor([number])
    same_as_first([value])
    return int(value)


def total(values: Tensor) -> Tensor:
    """The sum of all processes' values, which replaces them."""
    if world() > 1:
        with _reaching():
            dist.all_reduce(values)
    return values


def gathered(values: Tensor) -> list[Tensor]:
    """The values [n] of each process, in the order of the processes; each may have another n."""
    if world() == 1:
        return [values]
    with _reaching():
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]
        dist.all_gather(sizes, torch.tensor([len(values)]))
        longest = max(map(int, sizes))
        parts = [values.new_empty(longest) for _ in sizes]
        dist.all_gather(parts, torch.cat([values, values.new_zeros(longest - len(values))]))
    return [part[: int(size)] for part, size in zip(parts, sizes, strict=True)]


def backward(loss: Tensor, images: int, model: nn.Module) -> tuple[float, int]:
    """Gradients of the mean loss over the images of all processes; returns that loss and how many images there are.

    ``loss``: the mean over the ``images`` of this process. One all-reduce after the backward pass does it, with the
    loss in it: these networks have 6 to 20 MB of gradients, too few for sending them while others are computed to be
    worth a wrapper around the model. Running statistics of BatchNorms that are not synchronised are averaged alike.
    """
    if world() == 1:
        loss.backward()
        return loss.item(), images
    (loss * images).backward()
    shared = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    norms = [norm for norm in model.modules() if type(norm) is nn.BatchNorm2d and norm.training]
    averaged = [buffer for norm in norms for buffer in norm.buffers() if buffer.is_floating_point()]
    count = torch.tensor([float(images)], device=loss.device)
    parts = [*shared, *(tensor * images for tensor in averaged), loss.detach() * images, count]
    flat = total(torch.cat([part.reshape(-1) for part in parts]))
    loss_sum, everyone = flat[-2:].tolist()
    flat /= everyone
    for tensor, part in zip(shared + averaged, flat.split([part.numel() for part in parts]), strict=False):
        tensor.copy_(part.view(tensor.shape))
    return loss_sum / everyone, round(everyone)
