"""Where a job could run: nodes that can be had, what they cost, draw and emit; and the limits that a person sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..errors import CatalogError, ModelInputError, UnknownNameError, near
from ..machine import catalog
from ..models._check import need
from ..models.transformer.cluster import Cluster
from ..models.transformer.plan import Plan
from . import hardware

#: Country whose grid a provider's region draws from, by the providers' own lists of locations (read from memory).
COUNTRY: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("aws/us-east-1", "azure/eastus", "gcp/us-central1", "gcp/us-east4"), "USA"),
        **dict.fromkeys(("azure/westeurope", "gcp/europe-west4"), "NLD"),
        "azure/swedencentral": "SWE",
        "gcp/asia-southeast1": "SGP",
    }
)
#: Whose row of the catalog `pue` says it of a provider; one's own nodes, and others, have the industry's.
PUE_SITE: Mapping[str, str] = MappingProxyType({"aws": "aws", "azure": "microsoft", "gcp": "google"})
INDUSTRY = "industry-average"
#: Idle power over rated power, where the catalog has none: what the published power rows say together.
IDLE_FRAC = 0.13
#: Power of all else in a node over what its printed maximum leaves beside the devices; the same rows.
HOST_LOAD_FRAC = 0.68
#: Assumed where a node has no printed maximum: power of all else over the devices' rated power.
HOST_FRAC = 0.5


@dataclass(frozen=True, slots=True)
class Offer:
    """Nodes that can be had somewhere: what they are, and what they cost, draw and emit. Plain numbers.

    Attributes:
        name: As shown: node, provider, region, kind of price.
        cluster: The nodes and their fabric, for `precision`.
        node_counts: How many can be taken.
        price_usd_per_node_hour: None: not known, and then money is no objective.
        idle_w, rated_w: Power of one device without work, and its rated power. None: not known.
        host_w_per_node: Everything else in a node: processors, network cards, switches, fans.
        pue: Energy of the building over energy of the computers.
        carbon_intensity_gco2e_per_kwh: Of the grid there. None: not known, and then carbon is no objective.
        embodied_gco2e_per_node, lifetime_s: Manufacture of a node, and over how long it is spread.
        precision: Of the matrix products that `cluster` states the peak of.

    Raises:
        ModelInputError: A negative price or power, a PUE below 1, no node count.
    """

    name: str
    cluster: Cluster
    node_counts: Sequence[int]
    price_usd_per_node_hour: float | None = None
    idle_w: float | None = None
    rated_w: float | None = None
    host_w_per_node: float = 0.0
    pue: float = 1.0
    carbon_intensity_gco2e_per_kwh: float | None = None
    embodied_gco2e_per_node: float = 0.0
    lifetime_s: float = 5 * 365 * 86400.0
    precision: str = "bf16"

    def __post_init__(self) -> None:
        if not len(self.node_counts):
            raise ModelInputError(f"{self.name}: node_counts must name at least one number of nodes")
        need(f"{self.name}: node_counts", np.asarray(self.node_counts), 1, whole=True)
        need(f"{self.name}: pue", self.pue, 1, hint="a building uses at least what its computers use")
        need(f"{self.name}: lifetime_s", self.lifetime_s, above=True)
        for name in ("price_usd_per_node_hour", "idle_w", "rated_w", "host_w_per_node", "embodied_gco2e_per_node"):
            if getattr(self, name) is not None:
                need(f"{self.name}: {name}", getattr(self, name))
        if self.carbon_intensity_gco2e_per_kwh is not None:
            need(f"{self.name}: carbon_intensity_gco2e_per_kwh", self.carbon_intensity_gco2e_per_kwh, above=True)

    @property
    def priced(self) -> bool:
        """Whether money can be predicted."""
        return self.price_usd_per_node_hour is not None

    @property
    def metered(self) -> bool:
        """Whether energy and carbon can be predicted."""
        return None not in (self.idle_w, self.rated_w, self.carbon_intensity_gco2e_per_kwh)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan must stay within; infinity is no limit.

    Attributes:
        memory_bytes: Of one device. None: what the device has.
        deadline_s: For the whole job.
        budget_usd: For the whole job.
        carbon_gco2e: For the whole job.

    Raises:
        ModelInputError: A limit that is not positive.
    """

    memory_bytes: float | None = None
    deadline_s: float = inf
    budget_usd: float = inf
    carbon_gco2e: float = inf

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) is not None:
                need(name, getattr(self, name), above=True, infinite=True, hint="leave it out for no limit")


@dataclass(frozen=True, slots=True)
class Choice:
    """One plan somewhere, with what it is modelled to take; None where the offer does not let it be known."""

    plan: Plan
    offer: Offer
    num_nodes: int
    memory_bytes: float
    step_time_s: float
    mfu: float
    time_s: float
    cost_usd: float | None
    energy_j: float | None
    carbon_gco2e: float | None


def rented(
    node: str,
    node_counts: Sequence[int],
    *,
    instances: Sequence[str] = (),
    kinds: Sequence[str] = ("on_demand",),
    precision: str = "bf16",
    grid: str | None = None,
    pue: float | None = None,
    extra: Iterable[Path | str] = (),
) -> list[Offer]:
    """Return the offers of the catalog `prices` for nodes of one kind, the cheapest first.

    Args:
        node: Key or spelling of the catalog `nodes`; its network is taken for every provider's.
        node_counts: How many can be taken.
        instances: "provider/region/instance" of the catalog. Empty: all with as many of the node's accelerators.
        kinds: "on_demand", "spot".
        precision: Of the matrix products.
        grid: Region of the catalog `grids` for all of them. None: the country of each provider's region.
        pue: Energy of the building over energy of the computers. None: the catalog's newest, of each provider.
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: No such node, format, instance, kind of price or grid; or nothing that suits is in the catalog.
        CatalogError: The accelerator has no rated power, or an instance has other accelerators than the node.

    Valid when: spot nodes are never taken away; where the catalogs have no idle power or printed maximum, it is IDLE_FRAC, HOST_FRAC.
    Off by: manufacture is not counted. Prices are a snapshot with a date in the catalog.
    """
    extra = list(extra)
    whole = owned(node, node_counts, None, precision=precision, grid=grid, pue=pue, extra=extra)
    key = catalog.text("nodes", catalog.find("nodes", node, extra), "accelerator", extra)
    found = []
    for instance, kind in _priced(key, int(whole.cluster.per_node), instances, kinds, extra):
        provider, region, name = instance.split("/", 2)
        country = grid or COUNTRY.get(f"{provider}/{region}")
        found.append(
            replace(
                whole,
                name=f"{instance} {kind}",
                price_usd_per_node_hour=catalog.price(provider, region, name, kind, extra).usd_per_hour,
                pue=_pue(PUE_SITE.get(provider, INDUSTRY), pue, extra),
                carbon_intensity_gco2e_per_kwh=_intensity(country, extra),
            )
        )
    return sorted(found, key=lambda o: (o.price_usd_per_node_hour or 0.0, o.name))


def owned(
    node: str,
    node_counts: Sequence[int],
    price_usd_per_node_hour: float | None,
    *,
    precision: str = "bf16",
    grid: str | None = None,
    pue: float | None = None,
    extra: Iterable[Path | str] = (),
) -> Offer:
    """Return nodes of one kind at a price of one's own.

    Args:
        node, node_counts, precision, pue, extra: As `rented`.
        price_usd_per_node_hour: What a node and hour cost. None: not known.
        grid: Region of the catalog `grids`. None: not known, and then carbon is no objective.

    Raises:
        UnknownNameError: No such node, format or grid.
        CatalogError: The accelerator has no rated power.
        ModelInputError: A negative price, a PUE below 1.

    Valid when, off by: as `rented`.
    """
    extra = list(extra)
    cluster = hardware.cluster(node, precision, extra)
    key = catalog.text("nodes", catalog.find("nodes", node, extra), "accelerator", extra)
    sheet = catalog.accelerator(key, extra)
    if "power_max_w" not in sheet:
        raise CatalogError(
            f"{key} has no row power_max in the catalog accelerators; add it, so that energy can be modelled"
        )
    rated_w = sheet["power_max_w"].value
    devices_w = rated_w * int(cluster.per_node)
    whole = catalog.item("nodes", catalog.find("nodes", node, extra), extra).get("power_max_w")
    host_w = HOST_LOAD_FRAC * max(whole.value - devices_w, 0.0) if whole else HOST_FRAC * devices_w
    return Offer(
        node,
        cluster,
        node_counts,
        price_usd_per_node_hour,
        sheet["power_idle_w"].value if "power_idle_w" in sheet else IDLE_FRAC * rated_w,
        rated_w,
        host_w,
        _pue(INDUSTRY, pue, extra),
        _intensity(grid, extra),
        precision=hardware.precision_key(precision),
    )


def _pue(site: str, given: float | None, extra: list[Path | str]) -> float:
    return catalog.pue(site, extra=extra).value if given is None else given


def _intensity(region: str | None, extra: list[Path | str]) -> float | None:
    return catalog.grid(region, extra=extra).carbon_intensity_gco2e_per_kwh if region else None


def _priced(
    key: str, per_node: int, instances: Sequence[str], kinds: Sequence[str], extra: list[Path | str]
) -> list[tuple[str, str]]:
    """Return (instance, kind) of every price that suits a node; refuse a name that does not."""
    rows = catalog.load("prices", extra)
    fitting: dict[str, list[str]] = {}
    for row in rows:
        if row.extra.get("accelerator_count") == str(per_node) and _is(row.extra.get("accelerator", ""), key, extra):
            fitting.setdefault(row.key, []).append(row.field.removesuffix("_usd_per_h"))
    for name in instances:
        if name not in fitting:
            raise UnknownNameError(
                f"no price of a node with {per_node} x {key} is called {name!r}; {near(name, fitting)}"
            )
    found = [(name, kind) for name in instances or fitting for kind in fitting[name] if kind in kinds]
    if not found:
        known = sorted({k for name in instances or fitting for k in fitting[name]})
        what = f"no {' or '.join(kinds)} price of a node with {per_node} x {key} in the catalog prices"
        raise UnknownNameError(
            f"{what}; {'there is ' + ', '.join(known) if known else 'give a price per node and hour yourself'}"
        )
    return found


def _is(label: str, key: str, extra: list[Path | str]) -> bool:
    try:
        return bool(label) and catalog.find("accelerators", label, extra) == key
    except UnknownNameError:
        return False
