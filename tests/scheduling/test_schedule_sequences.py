"""Nothing lost: whatever users, nodes and drivers do, in whatever order, every job ends once and every slot comes back."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiinfra_widgets.experiments.scheduling.cluster import Cluster
from aiinfra_widgets.experiments.scheduling.hourly import HourlyTrace
from aiinfra_widgets.experiments.scheduling.jobs import Job, State
from aiinfra_widgets.experiments.scheduling.policies import POLICIES, Policy, Preempt, Resize, Start, Stop, make_policy
from aiinfra_widgets.experiments.scheduling.scheduler import Scheduler
from aiinfra_widgets.experiments.scheduling.simulate import Change, Costs, simulate

OPTIONS = {
    "carbon": lambda: {"trace": HourlyTrace([3, 1, 2], step_s=5), "max_delay_s": 12.0},
    "price": lambda: {"trace": HourlyTrace([1, 0, 2, 2], step_s=3), "max_delay_s": 6.0},
    "gang": lambda: {"quantum_s": 2.0},
    "priority": lambda: {"ageing_per_s": 0.3},
    "srtf": lambda: {"cost_s": 0.5},
    "fair_share": lambda: {"half_life_s": 10.0},
}


def policy(name: str) -> Policy:
    return make_policy(name, **OPTIONS.get(name, dict)())


class Driver:
    """Does to a scheduler what a driver of real ranks does, when and in the order that hypothesis chooses."""

    def __init__(self, slots: int, name: str) -> None:
        self.slots, self.now_s, self.next_id, self.next_node = slots, 0.0, 0, 3
        self.ends: Counter[int] = Counter()
        self.jobs: list[Job] = []
        self.scheduler = Scheduler(
            Cluster(3, slots, 8.0), policy(name), most_nodes=4, on_end=lambda job: self.ends.update([job.id])
        )

    def living(self) -> list[Job]:
        return [job for job in self.jobs if not job.final]

    def step(self, what: str, a: int, b: int, c: int) -> None:
        self.now_s += c % 3
        getattr(self, what)(a, b, c)
        self.check()

    def submit(self, a: int, b: int, c: int) -> None:
        nodes = 1 + a % 5
        job = Job(
            self.next_id,
            self.now_s,
            nodes,
            1.0 + b % 7,
            1.0 + c % 9,
            1 + a % (self.slots + 1) if self.slots > 1 else 1,
            memory_bytes=[0.0, 3.0, 9.0][c % 3] if a % 4 == 0 else 0.0,
            min_nodes=max(1, nodes - b % 3),
            max_nodes=nodes + a % 3,
            priority=c % 4,
            user="xyz"[b % 3],
            deadline_s=self.now_s + b % 20 - 2 if a % 3 == 0 else None,
            depends_on=(a % (self.next_id + 1),) if c % 4 == 0 and a % (self.next_id + 1) != self.next_id else (),
        )
        self.next_id += 1
        self.jobs.append(self.scheduler.submit(job, self.now_s))

    def cancel(self, a: int, b: int, c: int) -> None:
        if living := self.living():
            self.scheduler.cancel(living[a % len(living)].id, self.now_s)

    def kill(self, a: int, b: int, c: int) -> None:
        if living := self.living():
            self.scheduler.kill(living[a % len(living)].id, self.now_s)

    def set_priority(self, a: int, b: int, c: int) -> None:
        if living := self.living():
            self.scheduler.set_priority(living[a % len(living)].id, b, self.now_s)

    def set_policy(self, a: int, b: int, c: int) -> None:
        self.scheduler.set_policy(policy(sorted(POLICIES)[a % len(POLICIES)]), self.now_s)

    def add_nodes(self, a: int, b: int, c: int) -> None:
        if len(self.scheduler.cluster.free) < 6:
            self.scheduler.add_nodes([self.next_node], self.now_s)
            self.next_node += 1

    def pick_node(self, a: int) -> list[int]:
        nodes = sorted(self.scheduler.cluster.free)
        return [nodes[a % len(nodes)]] if nodes else []

    def remove_nodes(self, a: int, b: int, c: int) -> None:
        self.scheduler.remove_nodes(self.pick_node(a), self.now_s)

    def drain_nodes(self, a: int, b: int, c: int) -> None:
        self.scheduler.drain_nodes(self.pick_node(a), self.now_s)

    def add_back(self, a: int, b: int, c: int) -> None:
        self.scheduler.add_nodes(sorted(self.scheduler.cluster.draining)[:1], self.now_s)

    def node_died(self, a: int, b: int, c: int) -> None:
        for node in self.pick_node(a):
            self.scheduler.node_died(node, self.now_s)

    def decide(self, a: int, b: int, c: int) -> None:
        for action in self.scheduler.decide(self.now_s):
            job = action.job
            assert job.state is State.RUNNING
            match action:
                case Start():
                    assert set(action.nodes) <= set(job.on)
                case Preempt() | Stop():
                    assert job.stopping
                case Resize():
                    assert job.target == action.nodes

    def report(self, a: int, b: int, c: int) -> None:
        """Some running job has done what it was told, or something else has happened to it."""
        running = list(self.scheduler.running.values())
        if not running:
            return
        job = running[a % len(running)]
        if job.stopping and b % 4:
            self.scheduler.stopped(job.id, self.now_s, None if b % 2 else job.remaining_s / 2)
        elif job.target is not None and b % 4:
            self.scheduler.resized(job.id, self.now_s)
        elif b % 3 == 0:
            self.scheduler.finish(job.id, self.now_s)
        elif b % 7 == 1:
            self.scheduler.fail(job.id, self.now_s, "it broke")
        else:
            self.scheduler.progress(job.id, job.remaining_s * 0.9, self.now_s, saved=b % 2 == 0)

    def check(self) -> None:
        """What must hold after every single step."""
        scheduler, cluster = self.scheduler, self.scheduler.cluster
        held = {(job.id, node): job.slots for job in scheduler.running.values() for node in job.on}
        assert held == {(job, node): slots for node, jobs in cluster.held.items() for job, slots in jobs.items()}
        for node, free in cluster.free.items():
            assert 0 <= free == cluster.slots - sum(cluster.held[node].values())
            assert cluster.free_memory[node] >= 0
        assert cluster.num_busy == sum(held.values())
        assert cluster.num_slots == cluster.slots * len(cluster.free)
        assert cluster.num_partly_free == sum(f for f in cluster.free.values() if f < cluster.slots)
        for job in self.jobs:
            places = [job in scheduler.queue, job.id in scheduler.held, job.id in scheduler.running]
            assert sum(places) == (not job.final), (job, places)
            assert (job.state is State.RUNNING) == places[2]
            assert self.ends[job.id] == job.final
            if (
                job.final
                and job.state is not State.DONE
                and job.state is not State.CANCELLED
                and job.state is not State.KILLED
            ):
                assert job.reason

    def end(self) -> None:
        """Let all that runs come to its end, and close."""
        for _ in range(4 * len(self.jobs) + 50):
            self.decide(0, 0, 0)
            self.now_s += 1
            for job in list(self.scheduler.running.values()):
                if job.stopping:
                    self.scheduler.stopped(job.id, self.now_s)
                elif job.target is not None:
                    self.scheduler.resized(job.id, self.now_s)
                elif job.left_s(self.now_s) == 0:
                    self.scheduler.finish(job.id, self.now_s)
            self.check()
        assert not self.scheduler.running
        self.scheduler.close(self.now_s)
        self.check()


def overlaps(jobs: list[Job], intervals: list, slots: int) -> list[tuple[int, float]]:
    """Nodes, with a time, on which more slots were held than there are."""
    slots_of = {job.id: job.slots for job in jobs}
    found = []
    for node in {bar.node for bar in intervals}:
        edges = sorted(
            edge
            for bar in intervals
            if bar.node == node and bar.end_s > bar.start_s
            for edge in ((bar.start_s, 1, slots_of[bar.job]), (bar.end_s, 0, -slots_of[bar.job]))
        )
        held = 0
        for at_s, _, change in edges:
            held += change
            if held > slots:
                found.append((node, at_s))
    return found


VERBS = (
    *("submit", "decide", "report") * 3,
    *("cancel", "kill", "set_priority", "set_policy", "add_nodes", "remove_nodes", "drain_nodes", "add_back", "node_died"),
)  # fmt: skip
number = st.integers(0, 30)
commands = st.lists(st.tuples(st.sampled_from(VERBS), number, number, number), min_size=5, max_size=45)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(slots=st.sampled_from([1, 1, 2, 4]), name=st.sampled_from(sorted(POLICIES)), sequence=commands)
def test_every_job_ends_once_and_every_slot_comes_back(slots: int, name: str, sequence: list) -> None:
    driver = Driver(slots, name)
    for command in sequence:
        driver.step(*command)
    driver.end()
    assert all(job.final for job in driver.jobs)
    assert driver.ends == Counter(job.id for job in driver.jobs)
    assert driver.scheduler.cluster.num_busy == 0
    assert set(driver.scheduler.cluster.free.values()) <= {slots}
    assert driver.scheduler.holdings.open_intervals(driver.now_s) == []
    assert overlaps(driver.jobs, driver.scheduler.holdings.intervals, slots) == []


rows = st.lists(st.tuples(number, number, number, number), min_size=1, max_size=25)
happenings = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(["add", "remove", "drain", "die", "policy", "cancel"]), number),
    max_size=6,
)


def stream(rows: list[tuple[int, int, int, int]]) -> list[Job]:
    jobs = []
    for i, (a, b, c, d) in enumerate(rows):
        nodes = 1 + a % 3
        jobs.append(
            Job(
                i, float(b), nodes, 1.0 + c, 1.0 + d, max_nodes=nodes + a % 2, min_nodes=1 + a % nodes, user="ab"[d % 2]
            )
        )
    return jobs


def change(at_s: int, what: str, a: int) -> Change:
    """Something that happens to a simulated scheduler, whatever is there by then."""

    def do(scheduler: Scheduler, now_s: float) -> None:
        nodes = sorted(scheduler.cluster.free)
        living = [job.id for job in scheduler.jobs.values() if not job.final]
        if what == "add":
            scheduler.add_nodes([max(nodes, default=0) + 1 + at_s], now_s)
        elif what == "policy":
            scheduler.set_policy(policy(sorted(POLICIES)[a % len(POLICIES)]), now_s)
        elif what == "cancel" and living:
            scheduler.cancel(living[a % len(living)], now_s)
        elif what in {"remove", "drain", "die"} and nodes:
            node = nodes[a % len(nodes)]
            if what == "die":
                scheduler.node_died(node, now_s)
            else:
                (scheduler.remove_nodes if what == "remove" else scheduler.drain_nodes)([node], now_s)

    return Change(float(at_s), do)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(POLICIES)),
    rows=rows,
    happenings=happenings,
    cost_s=st.sampled_from([0.0, 0.5]),
    every_s=st.sampled_from([2.0, float("inf")]),
    contended=st.booleans(),
)
def test_a_simulation_ends_with_all_work_done_once(
    name: str, rows: list, happenings: list, cost_s: float, every_s: float, contended: bool
) -> None:
    jobs, ends = stream(rows), Counter()
    costs = Costs(cost_s, cost_s, cost_s, cost_s, every_s)
    found = simulate(
        jobs,
        4,
        policy(name),
        duration_s=(lambda job, nodes, busy: job.work_s * job.nodes / nodes * max(1.0, busy / 2))
        if contended
        else None,
        costs=costs,
        changes=[change(*h) for h in happenings],
        on_end=lambda job: ends.update([job.id]),
    )
    assert ends == Counter(range(len(jobs)))
    assert sum(found.num_by_state.values()) == len(jobs)
    assert overlaps(jobs, found.intervals, 1) == []
    died = any(what == "die" for _, what, _ in happenings)
    held: Counter[int] = Counter()
    for bar in found.intervals:
        held[bar.job] += bar.end_s - bar.start_s
    for job in jobs:
        assert abs(held[job.id] - job.held_node_s) < 1e-6
        if job.state is State.DONE:
            assert job.held_node_s >= job.work_s * job.nodes - 1e-6
            if not (died or cost_s or contended):
                assert job.held_node_s <= job.work_s * job.nodes + 1e-6
