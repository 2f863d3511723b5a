"""Data-Juicer's own operators for what our curation does without models; run by its interpreter.

    /path/to/its/python tests/benchmarks/data_juicer_recipe.py FOLDER film.mp4 ...

Scene split with its content detector, then resolution, duration and motion filters, one process
each. Prints one JSON line: processor seconds after the imports (children included) and clips left.
"""

from __future__ import annotations

import json
import resource
import sys


def processor_s() -> float:
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(folder: str, films: list[str]) -> None:
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops.load import load_ops

    split = {"detector": "ContentDetector", "threshold": 27.0, "save_dir": folder}
    operators = load_ops(
        [
            {"video_split_by_scene_mapper": split},
            {"video_resolution_filter": {"min_width": 200, "min_height": 120}},
            {"video_duration_filter": {"min_duration": 1.0, "max_duration": 120.0}},
            {"video_motion_score_filter": {"min_score": 0.25}},
        ]
    )
    text = "<__dj__video> <|__dj__eoc|>"
    dataset = NestedDataset.from_list([{"videos": [film], "text": text} for film in films])
    started_s = processor_s()
    for operator in operators:
        operator.num_proc = 1
        dataset = operator.run(dataset)
    clips = sum(len(row["videos"]) for row in dataset)
    print(json.dumps({"cpu_s": processor_s() - started_s, "clips": clips}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
