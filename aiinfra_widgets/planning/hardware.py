"""Accelerators and clusters for the models, built from the catalogs `accelerators`, `links` and `nodes`.

A name is a key of the catalog or one of its listed spellings, matched whole; nothing falls back to another device.
Which numbers are measured, printed or assumed is said by the `scope` and the note of their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from ..errors import CatalogError, UnknownNameError, near
from ..machine import catalog
from ..machine.rows import Entry
from ..models.transformer.cluster import Accelerator, Cluster

#: How the catalog spells a format -> how others do.
PRECISIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "fp32": ("float32", "single"),
        "tf32": ("tensorfloat32",),
        "bf16": ("bfloat16", "amp_bf16"),
        "fp16": ("float16", "half", "amp_fp16"),
        "fp8": ("fp8-cs", "fp8-ds", "fp8-mx", "fp8-sc", "mxfp8", "amp_fp8", "float8"),
        "fp4": ("nvfp4", "mxfp4"),
        "int8": (),
    }
)
#: Formats that mostly run through one unit, so that a share of the peak measured in one holds in the other.
_SIBLING = {"bf16": "fp16", "fp16": "bf16"}
#: Above this rate per watt (H100: 1.41e12, A100: 0.78e12) a GPU cannot hold its clock in a whole job; see Accelerator.is_newer.
POWER_BOUND_FLOPS_PER_W = 1e12
#: Scope of a number that nobody measured or published; such a row says why in its note.
ASSUMED = "assumed"


def precision_key(word: str) -> str:
    """Return how the catalogs spell a number format ("bfloat16" is "bf16").

    Raises:
        UnknownNameError: With the near matches.
    """
    wanted = word.strip().casefold()
    for key, others in PRECISIONS.items():
        if wanted == key or wanted in others:
            return key
    known = [*PRECISIONS, *(other for others in PRECISIONS.values() for other in others)]
    raise UnknownNameError(f"no precision {word!r}; {near(wanted, known)}")


def peak(name: str, precision: str, extra: Iterable[Path | str] = ()) -> Entry:
    """Return the row with the dense peak rate of a device in a format.

    Args:
        name: Key of an accelerator, or one of its spellings ("H100-SXM5-80GB").
        precision: As `precision_key` reads it.
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: No such device or format.
        CatalogError: The device has no peak in that format; it is never taken from another format.
    """
    key, wanted = catalog.find("accelerators", name, extra), precision_key(precision)
    sheet = catalog.item("accelerators", key, extra)
    found = _peak_row(sheet, wanted)
    if found:
        return found
    has = ", ".join(
        f.removeprefix("peak_").removesuffix("_flops").removesuffix("_dense") for f in sheet if f[:4] == "peak"
    )
    raise CatalogError(
        f"{key} has no peak rate in {wanted}; it has {has}; add a row peak_{wanted}_dense or plan with another"
    )


def _peak_row(sheet: Mapping[str, Entry], precision: str) -> Entry | None:
    return sheet.get(f"peak_{precision}_dense_flops") or sheet.get(f"peak_{precision}_flops")


def achievable(name: str, precision: str, extra: Iterable[Path | str] = ()) -> Entry:
    """Return the row that says which share of its peak the best large matrix product of a device reaches.

    The row of the format itself comes first, then that of the other 16-bit format where both have one rate (one unit
    runs both), then the one for all formats, whose scope is "assumed".

    Raises:
        UnknownNameError: No such device or format.
        CatalogError: No such row; there is no default in code.
    """
    key, wanted = catalog.find("accelerators", name, extra), precision_key(precision)
    sheet = catalog.item("accelerators", key, extra)
    own, other = (_peak_row(sheet, p) for p in (wanted, _SIBLING.get(wanted, wanted)))
    same_rate = own is not None and other is not None and own.value == other.value
    for measured in (wanted, _SIBLING.get(wanted, wanted)) if same_rate else (wanted,):
        if f"achievable_matmul_{measured}_frac" in sheet:
            return sheet[f"achievable_matmul_{measured}_frac"]
    if "achievable_matmul_frac" not in sheet:
        raise CatalogError(
            f"{key} has no row achievable_matmul_{wanted}_frac; measure it (aiinfra calibrate) and add it, "
            f"or add achievable_matmul_frac with scope {ASSUMED!r}"
        )
    return sheet["achievable_matmul_frac"]


def accelerator(name: str, precision: str, extra: Iterable[Path | str] = ()) -> Accelerator:
    """Return a device as the models want it.

    Args:
        name: Key of an accelerator, or one of its spellings ("A100-SXM4-80GB", "Pascal GPU (model not stated)").
        precision: Format of the matrix products.
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: No such device or format, with the near matches.
        CatalogError: A number that the device lacks.
    """
    sheet = catalog.item("accelerators", catalog.find("accelerators", name, extra), extra)
    half = _half_precision(sheet, peak(name, precision, extra))
    watts = sheet.get("power_max_w")
    return Accelerator(
        peak_flops=peak(name, precision, extra).value,
        achievable_frac=achievable(name, precision, extra).value,
        memory_bytes=_need(sheet, "memory_capacity_bytes"),
        memory_bandwidth_bytes_per_s=_need(sheet, "memory_bandwidth_bytes_per_s"),
        peak_16bit_flops=half,
        is_newer=watts is not None and not watts.key.startswith("tpu") and half / watts.value > POWER_BOUND_FLOPS_PER_W,
    )


def _half_precision(sheet: Mapping[str, Entry], own: Entry) -> float:
    """The rate in which attention and the output projection run: 16 bits, or the format itself where that is wider."""
    if own.field.startswith(("peak_fp32", "peak_tf32")):
        return own.value
    found = [sheet[f] for f in ("peak_bf16_dense_flops", "peak_fp16_dense_flops") if f in sheet]
    return found[0].value if found else own.value


def cluster(node: str, precision: str, extra: Iterable[Path | str] = ()) -> Cluster:
    """Return nodes of one kind on their usual fabric.

    Args:
        node: Key of the catalog `nodes`, or one of its spellings ("dgx-h100", "Selene").
        precision: Format of the matrix products.
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: No such node, device, link or format, with the near matches.
        CatalogError: A number that one of them lacks.
    """
    key = catalog.find("nodes", node, extra)
    facts = catalog.item("nodes", key, extra)
    inside, between = (
        catalog.item("links", _referred(facts, key, column, "links", extra), extra)
        for column in ("node_link", "fabric_link")
    )
    per_node = _need(facts, "accelerators")
    return Cluster(
        accelerator=accelerator(_referred(facts, key, "accelerator", "accelerators", extra), precision, extra),
        per_node=int(per_node),
        node_bandwidth_oneway_bytes_per_s=_need(inside, "bandwidth_oneway_bytes_per_s"),
        node_latency_s=_need(inside, "latency_s"),
        fabric_bandwidth_oneway_bytes_per_s=_need(facts, "injection_bandwidth_oneway_bytes_per_s") / per_node,
        fabric_latency_s=_need(between, "latency_s"),
    )


def node_for(name: str, source: str = "", extra: Iterable[Path | str] = ()) -> str:
    """Return the key of the node that an accelerator usually sits in, or that a published source used.

    Args:
        name: Key or spelling of an accelerator.
        source: Who published: exactly the words in the column `used_by` of the catalog `nodes`. A source that is not
            there has the accelerator's usual node.
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: No such accelerator, or none of the nodes has it.
    """
    key = catalog.find("accelerators", name, extra)
    accelerators, users, marks = (catalog.texts("nodes", c, extra) for c in ("accelerator", "used_by", "usual"))
    nodes = [node for node, device in accelerators.items() if device == key]
    for node in nodes:
        if source and source in users[node].split(catalog.SEPARATOR):
            return node
    usual = [node for node in nodes if marks[node] == "yes"]
    if len(usual) != 1:
        raise UnknownNameError(
            f"the catalog nodes says of {len(usual)} nodes that {key} usually sits in them; it has {nodes or 'none'} with that "
            f"accelerator; name one, or add a row whose column usual says yes"
        )
    return usual[0]


def cluster_for(name: str, precision: str, source: str = "", extra: Iterable[Path | str] = ()) -> Cluster:
    """Return the usual cluster of an accelerator, or the one that a published source used; see `node_for`.

    Raises:
        UnknownNameError: No such accelerator, node or format.
        CatalogError: A number that one of them lacks.
    """
    return cluster(node_for(name, source, extra), precision, extra)


def _referred(facts: Mapping[str, Entry], node: str, column: str, other: str, extra: Iterable[Path | str]) -> str:
    """The key of another catalog that a text column of a node names."""
    said = catalog.text("nodes", node, column, extra)
    known = catalog.keys(other, extra)
    if said not in known:
        where = next((e.where for e in facts.values() if e.extra.get(column)), next(iter(facts.values())).where)
        raise CatalogError(
            f"{where}: {column} of {node} is {said!r}, no key of the catalog {other}; {near(said, known)}"
        )
    return said


def _need(facts: Mapping[str, Entry], field: str) -> float:
    if field not in facts:
        one = next(iter(facts.values()))
        raise CatalogError(f"{one.where}: {one.key} has no row for {field}; it has {', '.join(facts)}; add the row")
    return facts[field].value
