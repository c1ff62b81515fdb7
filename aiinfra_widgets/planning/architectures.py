"""Model architectures from the catalog `architectures`: transformers by shape, the others by counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import CatalogError, UnknownNameError, near
from ..machine import catalog
from ..machine.rows import Entry
from ..models.transformer.architecture import Transformer

#: The kind whose shape `Transformer` can hold; all other kinds have only counts (see `facts`).
TRANSFORMER = "transformer"
_NEEDED = ("layers", "hidden", "heads", "vocab")
_OPTIONAL = ("kv_heads", "head_size", "ffn", "experts", "active_experts")


def names(kind: str = "", extra: Iterable[Path | str] = ()) -> list[str]:
    """Return the keys of all architectures, or of one kind ("transformer", "convolution", "recommender" ...).

    Raises:
        UnknownNameError: No architecture is of that kind.
    """
    kinds = catalog.texts("architectures", "kind", extra)
    if kind and kind not in kinds.values():
        raise UnknownNameError(f"no architecture of kind {kind!r}; {near(kind, set(kinds.values()))}")
    return sorted(key for key, its in kinds.items() if not kind or its == kind)


def facts(name: str, extra: Iterable[Path | str] = ()) -> dict[str, Entry]:
    """Return all numbers of an architecture, each with its source.

    Args:
        name: Key ("resnet-50") or one of its spellings ("LLAMA3_70B").
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: With the near matches.
    """
    return catalog.item("architectures", catalog.find("architectures", name, extra), extra)


def transformer(name: str, seq_len: int, extra: Iterable[Path | str] = ()) -> Transformer:
    """Return a transformer of the catalog at a sequence length.

    A learned table of positions has one entry per position, so it grows where `seq_len` exceeds the published one.

    Args:
        name: Key or spelling.
        seq_len: Tokens per sequence.
        extra: Further folders of catalogs.

    Raises:
        UnknownNameError: No such architecture.
        CatalogError: It is no transformer of this shape (a convolution, an encoder with a decoder), or a row is missing.
        ModelInputError: A sequence length that is not positive and whole.
    """
    key = catalog.find("architectures", name, extra)
    rows = catalog.item("architectures", key, extra)
    kind = catalog.text("architectures", key, "kind", extra)
    if kind != TRANSFORMER:
        raise CatalogError(
            f"{key} is of kind {kind!r}, which Transformer cannot hold; its counts are in planning.architectures.facts({key!r})"
        )
    missing = [field for field in _NEEDED if field not in rows]
    if missing:
        where = next(iter(rows.values())).where
        raise CatalogError(
            f"{where}: {key} has no row for {', '.join(missing)}; a transformer needs {', '.join(_NEEDED)}"
        )
    positions = _count(rows, "positions", 0)
    return Transformer(
        seq_len=seq_len,
        gated=bool(_count(rows, "gated", 0)),
        tied=bool(_count(rows, "tied", 1)),
        positions=max(positions, seq_len) if positions else 0,
        **{field: _count(rows, field) for field in _NEEDED},
        **{field: _count(rows, field) for field in _OPTIONAL if field in rows},
    )


def _count(rows: Mapping[str, Entry], field: str, default: int | None = None) -> int:
    if default is not None and field not in rows:
        return default
    return int(rows[field].value)
