"""What 35 million videos would take: cores, hours, bytes, objects, requests, money.

    python tests/benchmarks/load_model.py
    python tests/benchmarks/load_model.py --clips 1e6 --cores 512 --gpus 8 --kept-share 0.2
    python tests/benchmarks/load_model.py --plot jobs/pages/pictures/load.png

Plain arithmetic over `unit_costs.json` (what unit_costs.py measured here) and over assumptions that
are flags, each with its unit: how much footage a kept clip takes, what share of its peak a GPU
reaches, prices. The demand grows in proportion to the clips; what does not (the driver's memory,
planning) is what `million_sources.py` measures.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

COSTS = Path(__file__).with_name("unit_costs.json")
HOUR_S, GIB, TIB = 3600.0, 2**30, 2**40


def _flag(default: float, says: str, unit: str) -> Any:
    return field(default=default, metadata={"help": f"{says} [{unit}] (default {default:g})"})


@dataclass(frozen=True)
class Assumptions:
    """What is not measured here. The paper gives 35 M clips and nothing of how they were found."""

    clips: float = _flag(35e6, "videos kept", "clips")
    clip_s: float = _flag(6.0, "mean length of a kept clip", "s")
    kept_share: float = _flag(0.3, "of the footage's seconds that is kept", "share")
    source_s: float = _flag(300.0, "mean length of a file", "s")
    encoded_share: float = _flag(0.3, "of the kept seconds that must be coded anew", "share")
    frames_scored: float = _flag(3, "frames captioned and scored of a clip", "frames")
    stored_frames: float = _flag(64, "frames of a clip that are encoded to latents", "frames")
    high_res_share: float = _flag(0.5, "of the clips that the refinement is trained on", "share")
    base_epochs: float = _flag(2, "times that the base stage sees each clip", "epochs")
    refine_epochs: float = _flag(1, "times that the refinement sees each of its own", "epochs")
    cores: float = _flag(4096, "cores that curate", "cores")
    gpus: float = _flag(64, "GPUs that caption, score, encode and train", "GPUs")
    cpu_use: float = _flag(0.75, "of a core's time that does work", "share")
    gpu_peak_tflops: float = _flag(989, "dense bf16 peak of a GPU", "TFLOP/s")
    gpu_use: float = _flag(0.3, "of its peak that a GPU reaches", "share")
    core_hour_usd: float = _flag(0.02, "price of a core, spot", "USD/h")
    gpu_hour_usd: float = _flag(2.5, "price of a GPU", "USD/h")
    storage_tib_month_usd: float = _flag(23.0, "price of storage", "USD/TiB/month")
    write_million_usd: float = _flag(5.0, "price of PUT and LIST requests", "USD/million")
    read_million_usd: float = _flag(0.4, "price of other requests", "USD/million")


@dataclass(frozen=True)
class Line:
    """One stage. Zero where it takes nothing of a kind."""

    stage: str
    core_hours: float = 0.0
    gpu_hours: float = 0.0
    stored_bytes: float = 0.0
    objects: float = 0.0


def demand(costs: dict[str, Any], a: Assumptions) -> list[Line]:
    """What every stage takes."""
    cpu, ops = costs["cpu"], costs["operations"]
    kept_s = a.clips * a.clip_s
    footage_s = kept_s / a.kept_share
    sources = footage_s / a.source_s
    found = footage_s * cpu["clips_per_footage_s"]
    core_h, gpu_h = _core_hours(a), _gpu_hours(a)
    footage_bytes = footage_s * cpu["footage_bytes_per_s"]
    kept_bytes = kept_s * cpu["kept_bytes_per_s"]
    cut_s = (1 - a.encoded_share) * cpu["cut_copied_s_per_kept_s"]
    cut_s += a.encoded_share * cpu["cut_encoded_s_per_kept_s"]
    shards = max(a.clips / 1000, kept_bytes / GIB)
    judge = ops["caption_tflop_per_frame"] + ops["score_tflop_per_frame"]
    frames = a.clips * a.stored_frames
    base_values, refine_values = (width * height // 64 * 4 for width, height in SIZES_PX)
    return [
        Line("raw footage", 0, 0, footage_bytes, sources),
        Line("read and hash", core_h(cpu["hash_s_per_gib"] * footage_bytes / GIB)),
        Line("watch", core_h(cpu["watch_s_per_footage_s"] * footage_s), 0, 0, sources),
        Line("caption, score", 0, gpu_h(a.clips * a.frames_scored * judge), 0, 2 * sources),
        Line("cut, write shards", core_h(cut_s * kept_s), 0, kept_bytes, shards),
        Line("rows of all clips", 0, 0, found * cpu["row_bytes_per_clip"], found / 500_000),
        Line(
            "base latents", 0, gpu_h(frames * ops["vae_base_tflop_per_frame"]),
            2 * frames * base_values, 2 * a.clips / 128,
        ),
        Line(
            "refinement latents", 0,
            gpu_h(a.high_res_share * frames * ops["vae_refine_tflop_per_frame"]),
            2 * a.high_res_share * frames * refine_values, 2 * a.high_res_share * a.clips / 128,
        ),
        Line("train base", 0, gpu_h(a.base_epochs * a.clips * ops["train_base_tflop_per_video"])),
        Line("train refinement", 0, gpu_h(
            a.refine_epochs * a.high_res_share * a.clips * ops["train_refine_tflop_per_video"]
        )),
    ]  # fmt: skip


SIZES_PX = ((448, 256), (1280, 720))  # latents: an eighth each way, 4 channels, float16


def _core_hours(a: Assumptions) -> Any:
    return lambda processor_s: processor_s / HOUR_S / a.cpu_use


def _gpu_hours(a: Assumptions) -> Any:
    return lambda tflop: tflop / (a.gpu_peak_tflops * a.gpu_use) / HOUR_S


def requests(costs: dict[str, Any], a: Assumptions) -> dict[str, float]:
    """Of a curation into an object store, by kind. (A source here has a few clips, as those that
    were counted; each further clip costs what its cut and its sample do, and is not counted.)"""
    sources = a.clips * a.clip_s / a.kept_share / a.source_s
    per, fixed = costs["requests"]["per_source"], costs["requests"]["fixed"]
    return {kind: per[kind] * sources + fixed[kind] for kind in per}


def money(lines: list[Line], asked: dict[str, float], a: Assumptions) -> dict[str, float]:
    """USD; storage for one month of everything."""
    writes = sum(asked.get(kind, 0.0) for kind in ("PUT", "POST", "LIST"))
    reads = sum(asked.values()) - writes
    return {
        "cores": a.core_hour_usd * sum(line.core_hours for line in lines),
        "GPUs": a.gpu_hour_usd * sum(line.gpu_hours for line in lines),
        "storage, a month": a.storage_tib_month_usd * sum(x.stored_bytes for x in lines) / TIB,
        "requests": (writes * a.write_million_usd + reads * a.read_million_usd) / 1e6,
    }


# --- words and picture -----------------------------------------------------------------------


def table(costs: dict[str, Any], a: Assumptions) -> str:
    lines, asked = demand(costs, a), requests(costs, a)
    rows = [
        f"{a.clips:,.0f} kept videos of {a.clip_s:g} s from "
        f"{a.clips * a.clip_s / a.kept_share / HOUR_S:,.0f} h of footage",
        "",
        f"{'stage':20s}{'core hours':>12s}{'GPU hours':>12s}{'stored TiB':>12s}{'objects':>14s}"
        f"{'wall hours':>12s}",
    ]
    for line in [*lines, _sum_of(lines)]:
        wall_h = max(line.core_hours / a.cores, line.gpu_hours / a.gpus)
        if line.stage == "all":
            wall_h = sum(line.core_hours for line in lines) / a.cores
            wall_h += sum(line.gpu_hours for line in lines) / a.gpus
        rows.append(
            f"{line.stage:20s}{line.core_hours:12,.0f}{line.gpu_hours:12,.0f}"
            f"{line.stored_bytes / TIB:12,.1f}{line.objects:14,.0f}{wall_h:12,.1f}"
        )
    kinds = ", ".join(f"{kind} {count:,.0f}" for kind, count in sorted(asked.items()))
    prices = ", ".join(f"{what} {usd:,.0f}" for what, usd in money(lines, asked, a).items())
    rows += ["", f"requests of the curation: {kinds}", f"USD: {prices}"]
    return "\n".join(rows)


def _sum_of(lines: list[Line]) -> Line:
    names = [f.name for f in fields(Line)[1:]]
    return Line("all", **{name: sum(getattr(line, name) for line in lines) for name in names})


def plot(costs: dict[str, Any], a: Assumptions, path: Path) -> None:
    """Hours of every stage over the number of kept videos, on the given cores and GPUs."""
    from dataclasses import replace

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = [10**power for power in (3, 4, 5, 6, 7)] + [35e6]
    figure, (work, cost) = pyplot.subplots(1, 2, figsize=(11, 4.2))
    by_count = [demand(costs, replace(a, clips=count)) for count in counts]
    for number, line in enumerate(by_count[-1]):
        if line.core_hours or (line.gpu_hours and not line.stage.startswith("train")):
            rows = [lines[number] for lines in by_count]
            hours = [max(r.core_hours / a.cores, r.gpu_hours / a.gpus) for r in rows]
            work.plot(counts, hours, marker="o", label=line.stage)
    work.set(xscale="log", yscale="log", xlabel="videos kept", ylabel="hours")
    work.set_title(f"curate and encode on {a.cores:,.0f} cores, {a.gpus:,.0f} GPUs", fontsize=10)
    work.legend(fontsize=8)
    parts = money(by_count[-1], requests(costs, a), a)
    cost.barh(list(parts), list(parts.values()), color="#4477aa")
    cost.set(xlabel="USD")
    cost.set_title(f"{a.clips:,.0f} videos, training included", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--costs", type=Path, default=COSTS, help="a JSON file of unit_costs.py")
    parser.add_argument("--plot", type=Path, help="draw it into this PNG")
    for each in fields(Assumptions):
        flag = f"--{each.name.replace('_', '-')}"
        parser.add_argument(flag, type=float, default=each.default, help=each.metadata["help"])
    given = vars(parser.parse_args())
    costs_path, plot_path = given.pop("costs"), given.pop("plot")
    costs, assumptions = json.loads(costs_path.read_text()), Assumptions(**given)
    print(table(costs, assumptions))
    if plot_path:
        plot(costs, assumptions, plot_path)


if __name__ == "__main__":
    main()
