"""How other tools number antennas and subcarriers and turn phases, and the way from there to ours.

Ours: antenna row * columns + column, rows from below and columns along the array's own y axis; a delay tau turns
subcarrier f by exp(-j 2 pi f tau); subcarriers ascend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cfpos_envs.checks import nearest, one_of

PHASES = ("exp(-j2pi f tau)", "exp(+j2pi f tau)", "conjugated")
"""Signs of the phase of a delay; the last is a short name of the second."""
SUBCARRIER_ORDERS = ("ascending", "descending", "fft")
"""``fft``: 0, 1, ..., then the negative ones, as a DFT numbers its bins and Wi-Fi tools write them."""

# Number of the antenna in row r (from below) and column c in an array of so many rows and columns.
_NUMBERS: dict[str, Callable[[int, int, int, int], int]] = {
    "rows": lambda r, c, rows, columns: r * columns + c,
    "rows-from-top": lambda r, c, rows, columns: (rows - 1 - r) * columns + c,
    "columns": lambda r, c, rows, columns: c * rows + r,
    "columns-from-top": lambda r, c, rows, columns: c * rows + rows - 1 - r,
}
_TOOLS = {"deepmimo": "rows", "quadriga": "columns", "sionna": "columns-from-top"}
ANTENNA_ORDERS = (*_NUMBERS, *_TOOLS)
"""Names of antenna orders: what runs first, from below unless it says otherwise; and of the tools that use them."""


def antenna_permutation(order: str | Sequence[int], array_shape: tuple[int, int]) -> tuple[int, ...]:
    """The antennas of an order of theirs in ours: ``csi[..., permutation, :]`` is in our order.

    Args:
        order: one of ``ANTENNA_ORDERS``, or the permutation itself: entry a is their number of our antenna a.
        array_shape: (rows, columns).

    Raises:
        ValueError: an unknown name, or numbers that are no permutation.
    """
    rows, columns = array_shape
    count = rows * columns
    if isinstance(order, str):
        if order not in ANTENNA_ORDERS:
            raise ValueError(
                f"antenna_order={order!r} is not one of {', '.join(ANTENNA_ORDERS)}{nearest(order, ANTENNA_ORDERS)}, "
                f"nor a permutation of 0 ... {count - 1}"
            )
        number = _NUMBERS[_TOOLS.get(order, order)]
        return tuple(number(r, c, rows, columns) for r in range(rows) for c in range(columns))
    numbers = tuple(int(entry) for entry in order)
    if sorted(numbers) != list(range(count)):
        raise ValueError(
            f"antenna_order={list(numbers)} is no permutation of 0 ... {count - 1}, the antennas of a "
            f"{rows} x {columns} array; entry a is the file's number of antenna a in our order"
        )
    return numbers


def is_conjugated(phase: str) -> bool:
    """Whether CSI of this sign must be conjugated to be ours.

    Args:
        phase: one of ``PHASES``.

    Raises:
        ValueError: another one.
    """
    one_of("phase", phase, PHASES)
    return phase != PHASES[0]


def subcarrier_permutation(order: str, count: int) -> tuple[int, ...]:
    """The subcarriers of an order ascending: ``csi[..., permutation]``.

    Args:
        order: one of ``SUBCARRIER_ORDERS``. Of an even number in ``fft`` order -N/2 is there and N/2 is not.
        count: N.

    Raises:
        ValueError: an unknown name.
    """
    one_of("subcarrier_order", order, SUBCARRIER_ORDERS)
    numbers = tuple(range(count))
    if order == "fft":
        positive = (count + 1) // 2
        return numbers[positive:] + numbers[:positive]
    return numbers[::-1] if order == "descending" else numbers
