"""Nothing that this project reads can run code: looked for in the program, and tried."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from model.unet import VideoUNet
from model.weights import WeightsError, read_tensors
from pipelines.config import RequestError
from pipelines.shard_reader import member_bytes, open_shard
from pipelines.training.checkpoints.checkpoint import open_checkpoint
from pipelines.training.latents.packs import DamagedPack, map_safetensors
from tests.conftest import REPOSITORY, run_job
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import TINY_UNET

#: Modules that make objects of any class, or run code, from bytes.
MODULES = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
#: Calls that do so unless a keyword says otherwise: name -> (keyword, value it must have).
GUARDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
FORBIDDEN = ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "eval", "exec", "compile")
FORBIDDEN += ("tar.extractall", "tar.extract", "shutil.unpack_archive", "pd.read_pickle")
#: TorchScript is code. Read from one file, which the request names: the I3D network of FVD.
ALLOWED = {"pipelines/evaluation/fvd.py: torch.jit.load"}


def offences(path: Path) -> Iterator[str]:
    where = path.relative_to(REPOSITORY).as_posix()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [module or ""] if module else [alias.name for alias in node.names]
            yield from (f"{where}: imports {n}" for n in names if n.split(".")[0] in MODULES)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            said = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            short = name.split(".")[-1]
            if name in FORBIDDEN or short in ("extractall", "jit.load") or name == "torch.jit.load":
                yield f"{where}: {name}"
            if name in GUARDED:
                keyword, wanted = GUARDED[name]
                if said.get(keyword) is not wanted:
                    yield f"{where}: {name} without {keyword}={wanted}"
            if "from_pretrained" in name and said.get("trust_remote_code"):
                yield f"{where}: {name} runs the code of strangers"


def test_no_line_of_the_program_unpickles_or_evaluates() -> None:
    rooms = ("pipelines", "model", "jobs", "infra")
    files = [path for room in rooms for path in (REPOSITORY / room).rglob("*.py")]
    assert len(files) > 150
    assert {line for path in files for line in offences(path)} <= ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "eval(text)",
        "tar.extractall(folder)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(line: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tests.security.test_no_unpickling.REPOSITORY", tmp_path)
    (tmp_path / "x.py").write_text(line + "\n")
    assert list(offences(tmp_path / "x.py"))


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Path]:
    """Must not be there at the end."""
    place = tmp_path / "a pickle ran"
    yield place
    assert not place.exists()


def trap_bytes(mark: Path) -> bytes:
    return pickle.dumps({"weight": Trap(mark)})


def test_the_trap_works(tmp_path: Path) -> None:
    pickle.loads(trap_bytes(tmp_path / "sprung"))
    assert (tmp_path / "sprung").is_dir()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "w.bin", "w.ckpt"])
def test_weights_that_are_a_pickle_of_more_are_refused(
    name: str, tmp_path: Path, mark: Path
) -> None:
    (tmp_path / name).write_bytes(trap_bytes(mark))
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / name)
    buffer = io.BytesIO()
    torch.save({"weight": Trap(mark)}, buffer)  # the zip that PyTorch writes
    (tmp_path / name).write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError):
        read_tensors(tmp_path / name)


def test_an_archive_of_objects_is_no_weights(tmp_path: Path, mark: Path) -> None:
    np.savez(tmp_path / "w.npz", np.array([Trap(mark)], dtype=object), allow_pickle=True)
    for name in ("w.npz", "w.safetensors", "w.pt"):
        (tmp_path / name).write_bytes((tmp_path / "w.npz").read_bytes())
        with pytest.raises(WeightsError):
            read_tensors(tmp_path / name)


def test_init_from_a_trap_is_one_line(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "w.pt").write_bytes(trap_bytes(mark))
    latents = write_latents(tmp_path / "latents")
    ended = run_job(
        "jobs/train_base.py",
        *("--latents", latents, "--checkpoints", tmp_path / "c", "--init", tmp_path / "w.pt"),
        *("--steps", "1", "--tracking.enabled", "false"),
    )
    assert ended.code == 2, ended.err[-3000:]
    assert "Traceback" not in ended.err


def test_a_pack_that_is_a_pickle_is_refused(tmp_path: Path, mark: Path) -> None:
    (tmp_path / "pack-00000.safetensors").write_bytes(trap_bytes(mark))
    with pytest.raises(DamagedPack):
        map_safetensors(tmp_path / "pack-00000.safetensors")


def test_a_checkpoint_with_a_pickle_in_it_is_refused(tmp_path: Path, mark: Path) -> None:
    place = tmp_path / "step-00000001"
    (place / "unet").mkdir(parents=True)
    (place / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(trap_bytes(mark))
    (place / "checkpoint.json").write_bytes(trap_bytes(mark))
    with pytest.raises(RequestError, match="not readable as a checkpoint"):
        open_checkpoint(str(place), "base", "--base")


@pytest.mark.parametrize(
    "said",
    [
        {"_class_name": "os.system"},
        {"auto_map": {"AutoModel": "evil.Model"}, "trust_remote_code": True},
        {"_class_name": ["I2VGenXLUNet"], "_target_": "os.system"},
    ],
)
def test_a_network_s_configuration_names_no_code(
    said: dict[str, object], tmp_path: Path, mark: Path
) -> None:
    """`auto_map` makes other readers fetch and run a module: ours takes sizes, by known names."""
    VideoUNet(TINY_UNET).save(tmp_path)
    (tmp_path / "evil.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Model: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **said}))
    assert isinstance(VideoUNet.load(tmp_path), VideoUNet)


# --- shards ------------------------------------------------------------------------------------


def member(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(data))


def test_members_are_read_by_name_and_never_as_paths(tmp_path: Path, mark: Path) -> None:
    shard = tmp_path / "shards" / "x.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as tar:
        member(tar, "good.mp4", b"film")
        member(tar, "../outside.mp4", b"above")
        member(tar, "/absolute.mp4", b"root")
        member(tar, "evil.pkl", trap_bytes(mark))
        member(tar, "evil.pyd", trap_bytes(mark))
        member(tar, "link.mp4", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        member(tar, "inside.mp4", type=tarfile.LNKTYPE, linkname="good.mp4")
        member(tar, "loop.mp4", type=tarfile.SYMTYPE, linkname="loop.mp4")
        member(tar, "device.mp4", type=tarfile.CHRTYPE, devmajor=1, devminor=5)
        member(tar, "pipe.mp4", type=tarfile.FIFOTYPE)
        member(tar, "folder.mp4", type=tarfile.DIRTYPE)
    before = sorted(tmp_path.rglob("*"))
    with open_shard(shard) as tar:
        assert member_bytes(tar, "good.mp4") == b"film"
        assert member_bytes(tar, "../outside.mp4") == b"above"  # a name like any other
        for name in ("link", "inside", "loop", "device", "pipe", "folder", "absent"):
            with pytest.raises(KeyError):
                member_bytes(tar, f"{name}.mp4")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_claim_of_terabytes_takes_no_memory(tmp_path: Path) -> None:
    """A header may say any size, also in the way of files with holes, which are read as zeros."""
    with tarfile.open(tmp_path / "long.tar", "w") as tar:
        member(tar, "a.mp4", b"film")
        info = tarfile.TarInfo("b.mp4")
        info.size = 1 << 40
        assert tar.fileobj is not None
        tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
        tar.offset += 1024
    holes = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "b.mp4"}
    with tarfile.open(tmp_path / "holes.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        member(tar, "a.mp4", b"film")
        sizes = b"1\n%d\n0\n" % (1 << 40)
        real = {**holes, "GNU.sparse.realsize": str(1 << 40)}
        member(tar, "b.mp4", sizes.ljust(512, b"\0"), pax_headers=real)
    for name in ("long.tar", "holes.tar"):
        with open_shard(tmp_path / name) as tar, pytest.raises((KeyError, tarfile.TarError)):
            member_bytes(tar, "b.mp4")


def test_compression_hides_nothing(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w:gz") as tar:
        member(tar, "a.mp4", bytes(1 << 20))
    with pytest.raises(tarfile.TarError):
        open_shard(tmp_path / "x.tar")


def test_webdataset_runs_neither_pipes_nor_pickles(tmp_path: Path, mark: Path) -> None:
    """What other programs read our shards with, in the environment that our jobs set."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member(tar, "a.pkl", trap_bytes(mark))
        member(tar, "b.pyd", trap_bytes(mark))
    program = (
        "import sys; from pipelines import job; job.prepare_process()\n"
        "import webdataset as wds\n"
        "for url in sys.argv[1:]:\n"
        "    try:\n"
        "        samples = list(wds.WebDataset(url, shardshuffle=False).decode())\n"
        "        print('read', samples)\n"
        "    except BaseException as error:\n"
        "        print(type(error).__name__, error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "WDS_SECURE"}
    ended = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "x.tar"), f"pipe:mkdir '{mark}'"],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "read" not in ended.stdout and len(ended.stdout.splitlines()) >= 2, ended.stdout
