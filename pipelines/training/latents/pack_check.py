"""Every pack compared with its hash before training begins.

A feed hashes a pack when it first reads from it, which may be days after the start: by then a
flipped bit costs a running job. Packs are read by the machines of the cluster, some each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipelines.config import RequestError
from pipelines.progress import Progress
from pipelines.storage import Store, sha256_of_file
from pipelines.training.latents.on_disk import Latents, Pack

CHECKED_HERE_BYTES = 1 << 30  # more than that is read by the cluster
PACKS_PER_TASK = 16
THREADS = 4


def check_packs(latents: Latents) -> None:
    """Raises RequestError naming a pack that is missing or damaged. Needs Ray to be up when there
    is much to read. Packs that are encoded on the way have nothing to be compared with."""
    if latents.in_memory is not None:
        return
    packs = sorted(latents.packs.values(), key=lambda pack: pack.pack)
    checked = _here if sum(pack.bytes for pack in packs) <= CHECKED_HERE_BYTES else _on_the_cluster
    with Progress(len(packs), "packs", "checking latents") as progress:
        for number, problems in checked(latents.store, packs):
            if problems:
                raise RequestError(f"--latents {problems[0]}; encode again")
            progress.advance(number)


def problems_of(store: Store, packs: Iterable[Pack]) -> list[str]:
    """A sentence for each pack that is not as it was written."""
    found = []
    for pack in packs:
        if not store.exists(pack.pack):
            found.append(f"{store.path(pack.pack)}: missing")
            continue
        with store.as_local_file(pack.pack) as path:
            is_whole = path.stat().st_size == pack.bytes and sha256_of_file(path) == pack.sha256
        if not is_whole:
            found.append(
                f"{store.path(pack.pack)}: damaged, its bytes are not those that packs.parquet "
                "names"
            )
    return found


Checked = Iterator[tuple[int, list[str]]]


def _here(store: Store, packs: Sequence[Pack]) -> Checked:
    """(packs looked at, what is wrong with them), as they are done."""
    with ThreadPoolExecutor(THREADS) as threads:
        for problems in threads.map(lambda pack: problems_of(store, [pack]), packs):
            yield 1, problems


def _on_the_cluster(store: Store, packs: Sequence[Pack]) -> Checked:
    import ray

    task: Any = ray.remote(num_cpus=1)(problems_of)
    batches = [packs[i : i + PACKS_PER_TASK] for i in range(0, len(packs), PACKS_PER_TASK)]
    waiting = {task.remote(store, batch): len(batch) for batch in batches}
    while waiting:
        (done,), _ = ray.wait(list(waiting))
        yield waiting.pop(done), ray.get(done)
