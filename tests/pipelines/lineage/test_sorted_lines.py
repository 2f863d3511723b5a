from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipelines.lineage.sorted_lines import SortedLines


@given(st.lists(st.binary(max_size=20), max_size=60), st.integers(1, 80))
def test_any_lines_come_in_order_however_little_is_held(lines: list[bytes], held: int) -> None:
    few = SortedLines(held_bytes=held)
    few.add(lines)
    assert list(few.in_order()) == sorted(lines)
