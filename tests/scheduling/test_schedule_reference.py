"""The scheduler against a plain one, which recomputes everything from lists at each event: slow, and easy to believe."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiinfra_widgets.experiments.scheduling.cluster import Cluster
from aiinfra_widgets.experiments.scheduling.jobs import Job
from aiinfra_widgets.experiments.scheduling.policies import make_policy
from aiinfra_widgets.experiments.scheduling.simulate import simulate

AGEING_PER_S = 0.5
ORDERS = {
    "fifo": lambda job: job.submit_s,
    "easy": lambda job: job.submit_s,
    "sjf": lambda job: job.estimate_s,
    "priority": lambda job: AGEING_PER_S * job.submit_s - job.priority,
}


@dataclass
class Run:
    """One job that runs in the plain scheduler."""

    job: Job
    nodes: list[int]
    end_s: float
    expected_end_s: float


@dataclass
class Plain:
    """Jobs in lists; nothing is remembered from one event to the next."""

    policy: str
    num_nodes: int
    slots: int
    memory_bytes: float
    running: list[Run] = field(default_factory=list)
    waiting: list[Job] = field(default_factory=list)
    started: dict[int, tuple[float, list[int]]] = field(default_factory=dict)

    def free(self, without_s: float = -math.inf, extra: list[Run] | None = None) -> dict[int, tuple[int, float]]:
        """Free slots and memory of each node, without jobs that should end by a time, with `extra` jobs."""
        table = dict.fromkeys(range(self.num_nodes), (self.slots, self.memory_bytes))
        for run in [r for r in self.running if r.expected_end_s > without_s] + (extra or []):
            for node in run.nodes:
                slots, memory = table[node]
                table[node] = (slots - run.job.slots, memory - run.job.memory_bytes)
        return table

    def fitting(self, job: Job, table: dict[int, tuple[int, float]]) -> list[int]:
        fine = [n for n, (slots, memory) in table.items() if slots >= job.slots and memory >= job.memory_bytes]
        return sorted(fine, key=lambda n: (table[n][0], n))

    def start(self, job: Job, now_s: float) -> None:
        nodes = self.fitting(job, self.free())[: job.nodes]
        self.waiting.remove(job)
        self.running.append(Run(job, nodes, now_s + job.work_s, now_s + job.estimate_s))
        self.started[job.id] = (now_s, nodes)

    def fits(self, job: Job) -> bool:
        return len(self.fitting(job, self.free())) >= job.nodes

    def reservation_s(self, head: Job) -> float:
        """The first time at which the head fits, if all end when they should."""
        times = sorted(run.expected_end_s for run in self.running)
        return next(t for t in times if len(self.fitting(head, self.free(without_s=t))) >= head.nodes)

    def may_overtake(self, job: Job, head: Job, reserved_s: float, now_s: float) -> bool:
        if not self.fits(job):
            return False
        if now_s + job.estimate_s <= reserved_s:
            return True
        there = Run(job, self.fitting(job, self.free())[: job.nodes], math.inf, math.inf)
        return len(self.fitting(head, self.free(without_s=reserved_s, extra=[there]))) >= head.nodes

    def decide(self, now_s: float) -> None:
        while self.waiting:
            self.waiting.sort(key=lambda job: (ORDERS[self.policy](job), job.submit_s, job.id))
            if not self.fits(self.waiting[0]):
                break
            self.start(self.waiting[0], now_s)
        while self.policy == "easy" and self.waiting:
            head = self.waiting[0]
            reserved_s = self.reservation_s(head)
            others = [j for j in self.waiting[1:] if self.may_overtake(j, head, reserved_s, now_s)]
            if not others:
                break
            self.start(others[0], now_s)

    def run(self, jobs: list[Job]) -> dict[int, tuple[float, list[int]]]:
        arrivals = sorted(jobs, key=lambda job: job.submit_s)
        while arrivals or self.running:
            now_s = min([j.submit_s for j in arrivals[:1]] + [r.end_s for r in self.running])
            self.running = [r for r in self.running if r.end_s > now_s]
            self.waiting += [j for j in arrivals if j.submit_s <= now_s]
            arrivals = [j for j in arrivals if j.submit_s > now_s]
            self.decide(now_s)
        return self.started


@dataclass
class Stream:
    """Jobs as plain numbers, from which each scheduler makes its own."""

    num_nodes: int
    slots: int
    memory_bytes: float
    rows: list[tuple[float, int, int, float, float, float, float]]

    def jobs(self) -> list[Job]:
        made, at_s = [], 0.0
        for number, (gap_s, nodes, slots, work_s, estimate_s, memory, priority) in enumerate(self.rows):
            at_s += gap_s
            nodes, slots = min(nodes, self.num_nodes), min(slots, self.slots)
            memory = memory if memory <= self.memory_bytes else 0.0
            made.append(Job(number, at_s, nodes, work_s, estimate_s, slots, memory_bytes=memory, priority=priority))
        return made


def small() -> st.SearchStrategy[Stream]:
    """Streams that shrink well: few different numbers, so that many things happen at the same time."""
    times = st.one_of(st.integers(1, 6).map(float), st.floats(0.1, 20))
    row = st.tuples(
        st.one_of(st.just(0.0), st.integers(0, 3).map(float), st.floats(0, 5)),
        st.integers(1, 6),
        st.integers(1, 4),
        times,
        times,
        st.sampled_from([0.0, 0.0, 1.0, 3.0]),
        st.integers(0, 3).map(float),
    )
    rows = st.lists(row, min_size=1, max_size=25)
    return st.builds(Stream, st.integers(1, 6), st.sampled_from([1, 1, 2, 4]), st.sampled_from([math.inf, 4.0]), rows)


def crowded(seed: int) -> Stream:
    """A stream under which the queue is long most of the time; estimates are right, too low or too high."""
    chance = random.Random(seed)
    num_nodes, slots = chance.randint(2, 10), chance.choice([1, 2, 4])
    rows = []
    for _ in range(chance.randint(20, 60)):
        work_s = chance.choice([float(chance.randint(1, 9)), chance.uniform(0.1, 20)])
        estimate_s = work_s * chance.choice([1.0, 1.0, 0.5, 2.0, chance.uniform(0.1, 5)])
        gap_s, nodes = chance.choice([0.0, 1.0, chance.uniform(0, 3)]), chance.choice([1, 1, 1, 2, 3, num_nodes])
        memory, priority = chance.choice([0.0, 0.0, 1.0, 3.0]), float(chance.randint(0, 3))
        rows.append((gap_s, nodes, chance.randint(1, slots), work_s, estimate_s, memory, priority))
    return Stream(num_nodes, slots, chance.choice([math.inf, 4.0]), rows)


def streams() -> st.SearchStrategy[Stream]:
    return st.one_of(small(), st.integers(0, 2**32).map(crowded), st.integers(0, 2**32).map(crowded))


@pytest.mark.parametrize("policy", sorted(ORDERS))
@settings(max_examples=300, deadline=None)
@given(stream=streams())
def test_identical_to_the_plain_scheduler(policy: str, stream: Stream) -> None:
    options = {"ageing_per_s": AGEING_PER_S} if policy == "priority" else {}
    cluster = Cluster(stream.num_nodes, stream.slots, stream.memory_bytes)
    found = simulate(stream.jobs(), cluster, make_policy(policy, **options))
    want = Plain(policy, stream.num_nodes, stream.slots, stream.memory_bytes).run(stream.jobs())
    assert {job.id: job.start_s for job in found.jobs} == {i: start_s for i, (start_s, _) in want.items()}
    bars = sorted((bar.job, bar.node) for bar in found.intervals)
    assert bars == sorted((i, node) for i, (_, nodes) in want.items() for node in nodes)


@settings(max_examples=100, deadline=None)
@given(stream=streams())
def test_easy_never_delays_the_first_job_that_waits(stream: Stream) -> None:
    """With exact estimates: a job that is at the head starts no later than if no other had been let past it."""
    rows = [(*row[:4], row[3], *row[5:]) for row in stream.rows]
    exact = Stream(stream.num_nodes, stream.slots, stream.memory_bytes, rows)

    def starts(policy: str) -> dict[int, float]:
        cluster = Cluster(exact.num_nodes, exact.slots, exact.memory_bytes)
        return {job.id: job.start_s for job in simulate(exact.jobs(), cluster, make_policy(policy)).jobs}

    fifo, easy = starts("fifo"), starts("easy")
    first = next((job for job in exact.jobs() if fifo[job.id] > job.submit_s), None)
    if first is not None:
        assert easy[first.id] == fifo[first.id]
