"""Bytes for a reader. Torch-free."""

GIB = 2**30


def size(count: float) -> str:
    """`512 B`, `27.7 GiB`; below 10 TiB in GiB, as memory is spoken of."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or (unit == "GiB" and abs(count) < 10 * 1024):
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
