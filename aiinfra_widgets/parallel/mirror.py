"""Redundancy in a neighbour's memory: each rank keeps a copy of its share of the state, and one of its predecessor's in a ring.

When a rank dies, the survivors put the state together from those copies, as it was after a step that all of them kept. Two
generations are held: a death in the middle of a copy leaves the one before. Neighbours that die together take the state
along, for who held the second copy is dead too.

# P parameters of the whole net, k vectors of the state (parameters, and the optimiser's tensors)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from ..ranks.link import InjectedLink
from .layout import Layout, Piece, Whole
from .ledger import Ledger

TAG = 63
#: A death in the middle of a copy leaves the generation before.
GENERATIONS = 2


@dataclass(slots=True)
class Share:
    """Copies of the numbers that one rank stands for.

    Attributes:
        owner: Its place in the ring; of replicas the first one's, for they hold the same.
        runs: (m, 2) begin and length of each run of places in the whole state, its k vectors laid end to end.
        numbers: Run after run.
    """

    owner: int
    runs: Tensor
    numbers: Tensor

    def put(self, whole: Whole) -> None:
        """Write the numbers where they belong."""
        begins, lengths = self.runs[:, 0], self.runs[:, 1]
        shifts = begins - (lengths.cumsum(0) - lengths)
        places = torch.arange(len(self.numbers)) + torch.repeat_interleave(shifts, lengths)
        for i, vector in enumerate(whole.values()):
            here = (places >= i * len(vector)) & (places < (i + 1) * len(vector))
            vector[places[here] - i * len(vector)] = self.numbers[here]


@dataclass(slots=True)
class Generation:
    """Copies of the state after one step.

    Attributes:
        shares: This rank's own, and its predecessor's where that sends it.
        owners: Of every share that makes up the whole state.
        number: Counts the generations of a run, over all rings; none has the number of another one.
        step: Steps done then.
    """

    shares: list[Share]
    owners: frozenset[int]
    number: int = 0
    step: int = 0


@dataclass(slots=True)
class Mirror:
    """What one rank keeps; it outlives engines and their communicators.

    Attributes:
        kept: Generations that are complete here, the newest last.
        count: The highest number of a generation so far, also of those that came to nothing.
    """

    kept: list[Generation] = field(default_factory=list)
    count: int = 0

    def newest(self, comm: MPI.Intracomm) -> int:
        """Return the number of the newest generation of which the ranks of `comm` hold every share, 0 for none; a collective."""
        numbers = np.zeros((comm.size, GENERATIONS), np.int64)
        mine = [g.number for g in self.kept]
        comm.Allgather(np.array(mine + [0] * (GENERATIONS - len(mine)), np.int64), numbers)
        widest = np.array([1 + max((max(g.owners) for g in self.kept), default=-1)])
        comm.Allreduce(MPI.IN_PLACE, widest, MPI.MAX)
        for number in sorted({int(n) for n in numbers.flat} - {0}, reverse=True):
            found = np.zeros((2, int(widest[0])), np.int64)  # who must be there, and who is
            for generation in (g for g in self.kept if g.number == number):
                found[0, list(generation.owners)] = 1
                found[1, [share.owner for share in generation.shares]] = 1
            comm.Allreduce(MPI.IN_PLACE, found, MPI.MAX)
            if (found[0] == found[1]).all():
                return number
        return 0

    def rebuild(self, comm: MPI.Intracomm, number: int, whole: Whole) -> int:
        """Fill `whole`, zeros before, on every rank of `comm`; a collective. Newer generations are forgotten.

        Args:
            comm: Those who are left.
            number: From `newest`; not 0.
            whole: Parameters and the optimiser's tensors, P numbers each.

        Returns:
            The steps that were done when it was made.
        """
        self.kept = [g for g in self.kept if g.number <= number]
        mine = [g for g in self.kept if g.number == number]
        about = np.array([max((g.step for g in mine), default=0), max((max(g.owners) for g in mine), default=0)])
        comm.Allreduce(MPI.IN_PLACE, about, MPI.MAX)
        writers = np.full(int(about[1]) + 1, comm.size)
        shares = {share.owner: share for g in mine for share in g.shares}
        writers[list(shares)] = comm.rank
        comm.Allreduce(MPI.IN_PLACE, writers, MPI.MIN)
        for owner, share in shares.items():
            if writers[owner] == comm.rank:
                share.put(whole)
        for vector in whole.values():  # every number was written by one rank, and is zero on the others
            comm.Allreduce(MPI.IN_PLACE, vector.numpy())
        return int(about[0])


class Ring:
    """The copies that the ranks of one engine make; making it is a collective, and makes the first one.

    Args:
        mirror: Where they are kept.
        pieces: What this rank stands for.
        layout: Of the whole state; `kinds` are its vectors, in order.
        comm: The ranks of the engine, each the neighbour of the next.
        ledger, link: Of the engine.
        owner: See `Share`.
        sends: Whether copies go to a neighbour; without, replicas hold the same anyway, and each keeps its own.
        step: Steps done.
    """

    def __init__(
        self,
        mirror: Mirror,
        pieces: Sequence[Piece],
        layout: Layout,
        kinds: Sequence[str],
        comm: MPI.Intracomm,
        ledger: Ledger,
        link: InjectedLink,
        *,
        owner: int,
        sends: bool,
        step: int,
    ) -> None:
        self.mirror, self.comm, self.ledger, self.link = mirror, comm, ledger, link
        self.sends, self.to, self.source = sends, (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
        self._pieces: list[tuple[Piece, Tensor | None]] = []
        places = []
        for piece in pieces:
            here = piece.places >= 0
            self._pieces.append((piece, None if bool(here.all()) else here.nonzero()[:, 0]))
            places.append(piece.places[here] + kinds.index(piece.kind) * layout.size)
        runs = _runs(torch.cat(places)) if places else torch.empty(0, 2, dtype=torch.int64)
        dtype = pieces[0].numbers.dtype if pieces else torch.float32
        told = np.empty((comm.size, 2), np.int64)
        comm.Allgather(np.array([owner, len(runs)], np.int64), told)
        owners = frozenset(int(o) for o in told[:, 0])
        held = [(owner, runs)]
        if sends:
            theirs = torch.empty(int(told[self.source, 1]), 2, dtype=torch.int64)
            comm.Sendrecv(runs.numpy(), self.to, TAG, theirs.numpy(), self.source, TAG)
            held.append((int(told[self.source, 0]), theirs))

        def room() -> Generation:
            return Generation([Share(o, r, torch.empty(int(r[:, 1].sum()), dtype=dtype)) for o, r in held], owners)

        self._rooms = [room() for _ in range(GENERATIONS)]
        self.held_bytes = GENERATIONS * sum(share.numbers.nbytes for share in self._rooms[0].shares)
        count = np.array([mirror.count])
        comm.Allreduce(MPI.IN_PLACE, count, MPI.MAX)
        mirror.count = int(count[0])
        del mirror.kept[:-1]
        self.keep(step)
        comm.Barrier()  # it is complete everywhere: those before are not needed any more

    def keep(self, step: int) -> None:
        """Make a copy of the state after `step` steps and, in the neighbour's memory, another one; each rank of the ring calls it."""
        kept = self.mirror.kept
        oldest = kept.pop(0) if len(kept) == GENERATIONS else None
        room = self._rooms.pop() if self._rooms else oldest
        assert room is not None, "a copy was broken off, and the ring is used again"
        self.mirror.count += 1
        room.number, room.step = self.mirror.count, step
        mine = room.shares[0].numbers
        if not self.sends:
            self._copy(mine)
        else:
            with self.ledger.collective("mirror") as note:
                self._copy(mine)
                note.sent_bytes = mine.nbytes
                self.link.delay(note.sent_bytes)
                self.comm.Sendrecv(mine.numpy(), self.to, TAG, room.shares[1].numbers.numpy(), self.source, TAG)
        kept.append(room)

    def _copy(self, mine: Tensor) -> None:
        at = 0
        for piece, here in self._pieces:
            numbers = piece.numbers.detach() if here is None else piece.numbers.detach()[here.to(piece.numbers.device)]
            mine[at : at + len(numbers)].copy_(numbers)
            at += len(numbers)


def _runs(places: Tensor) -> Tensor:
    """Return (m, 2) begin and length of the runs of consecutive numbers in `places`."""
    breaks = (places.diff() != 1).nonzero()[:, 0] + 1
    begins = torch.cat([torch.zeros(min(len(places), 1), dtype=torch.int64), breaks])
    ends = torch.cat([breaks, torch.full((min(len(places), 1),), len(places))])
    return torch.stack([places[begins], ends - begins], 1).contiguous()
