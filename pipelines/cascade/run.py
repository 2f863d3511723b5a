"""Runs the plan: one line per job for the person watching, every word of the jobs in logs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from pipelines.cascade.lineage_page import write_lineage_page
from pipelines.cascade.plan import CascadeConfig, Node
from pipelines.cascade.prompt import prompt_from_dataset
from pipelines.config import RequestError
from pipelines.job import say
from pipelines.progress import in_words
from pipelines.storage import Store
from pipelines.storage.single_files import is_file
from pipelines.training.latents.on_disk import SCHEMA_VERSION, read_header

LATENTS_MARKER = "latents.json"


class Runner(Protocol):
    def run(self, command: Sequence[str], log: Path, watch: Any) -> dict[str, Any]: ...


def run_cascade(
    config: CascadeConfig, nodes: Sequence[Node], runner: Runner, logs: Path
) -> dict[str, Any]:
    """Runs what is not complete yet; returns the URIs of every result.

    Raises RequestError or `runners.JobFailed` when a job does; what was finished stays finished.
    """
    started_s = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    for number, node in enumerate(nodes, start=1):
        head = f"[{number}/{len(nodes)}] {node.title}"
        if is_complete(node):
            say(f"{head}: already done, {node.output}")
            continue
        command = node.command()
        if node.marker == LATENTS_MARKER and (former := former_latents(node)):
            command += ["--reuse", ",".join(former)]
        if node.name == "video" and not config.image:
            command += prompt_from_dataset(nodes[0].output, Path(logs).parent / "prompt")
        shown = _StatusLine(head)
        node_started_s = time.monotonic()
        try:
            results[node.name] = runner.run(command, logs / f"{node.name}.log", shown.update)
        except BaseException:
            shown.end("failed")
            raise
        seconds = in_words(time.monotonic() - node_started_s)
        shown.end(f"{_summary(node, results[node.name])}, {seconds}")
    where = {node.name: node.output for node in nodes}
    return {
        "dataset": where["dataset"],
        "latents": [where["latents-base"], where["latents-refine"]],
        "base": newest_checkpoint(where["base"]),
        "refine": newest_checkpoint(where["refine"]),
        "video": where["video"],
        "report": f"{where['dataset']}/report.html",
        "lineage": write_lineage_page(config, where["video"]),
        "seconds": round(time.monotonic() - started_s, 1),
    }


def is_complete(node: Node) -> bool:
    """True when the file that is written last is there (and, for training, names the last step)."""
    if node.name == "video":
        stem = node.output.removesuffix(".mp4")
        return all(is_file(f"{stem}{ending}") for ending in (".mp4", ".json"))
    store = Store.open(node.output)
    if not store.exists(node.marker):
        return False
    if node.marker != "latest.json":
        return True
    return bool(store.read_json("latest.json").get("finished", False))


def former_latents(node: Node) -> list[str]:
    """Complete latents beside the node's output, of this cascade's earlier footage or other stage:
    what they hold of the same clips and texts need not be encoded again. They change how long it
    takes and not what is made, so they are no part of the output's name."""
    out, _, own = node.output.rpartition("/")
    folders = Store(out).list_folders()
    found = [name for name in folders if name.startswith("latents-") and name != own]
    return [f"{out}/{name}" for name in found if _can_be_taken_over(f"{out}/{name}")]


def _can_be_taken_over(latents: str) -> bool:
    try:
        header = read_header(Store.open(latents))
    except RequestError:
        return False  # of another version of this code, or damaged: then nothing is gained
    return header is not None and header.schema_version == SCHEMA_VERSION


def newest_checkpoint(checkpoints: str) -> str:
    """The directory that `latest.json` names. Raises RequestError when there is none."""
    store = Store.open(checkpoints)
    if not store.exists("latest.json"):
        raise RequestError(f"{checkpoints}: no checkpoint there (latest.json is missing)")
    return store.path(store.read_json("latest.json")["checkpoint"])


def _summary(node: Node, result: dict[str, Any]) -> str:
    """The few figures of a job that a person wants to see at once."""
    if node.name == "dataset":
        return (
            f"{result['kept']} clips kept, {result['dropped']} dropped, "
            f"from {result['sources']} files"
        )
    if node.name.startswith("latents"):
        return f"{result['clips']} clips, {result['reused']} of them taken over"
    if node.name in ("base", "refine"):
        return f"step {result['step']}, loss {result['loss']:.4f}, {result['samples_seen']} samples"
    return f"{result['frames']} frames of {result['width_px']}x{result['height_px']}"


class _StatusLine:
    """One line per job: rewritten in place on a terminal, printed at start and end in a log."""

    def __init__(self, head: str) -> None:
        self.head = head
        self.live = sys.stderr.isatty()
        if self.live:
            self._rewrite("starting")

    def update(self, words: str) -> None:
        if self.live:
            self._rewrite(words)

    def end(self, words: str) -> None:
        if self.live:
            sys.stderr.write("\r\x1b[K")
        say(f"{self.head}: {words}")

    def _rewrite(self, words: str) -> None:
        import shutil

        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write("\r\x1b[K" + f"{self.head}: {words}"[:width])
        sys.stderr.flush()
