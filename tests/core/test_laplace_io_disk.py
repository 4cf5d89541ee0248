"""Saves that are cut off, that meet each other, or that find no room: never a half file."""

import errno
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from bayesdiff_core import laplace_io
from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.laplace_io import load_posterior, save_posterior

ROOT = Path(__file__).parents[2]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")

SAVERS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from bayesdiff_core.laplace import LaplacePosterior
from bayesdiff_core.laplace_io import save_posterior

def save_for_good(number, path, seconds):
    posterior = LaplacePosterior(number * torch.eye(300), number, number, number, number)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        save_posterior(posterior, path)

def forked(*arguments):
    child = os.fork()
    if child == 0:
        try:
            save_for_good(*arguments)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return child

task, path = sys.argv[1], Path(sys.argv[2])
if task == "together":
    children = [forked(number, path, 2) for number in range(1, 9)]
    sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
chance, left, flush = random.Random(0), set(), os.fsync
os.fsync = lambda file: (time.sleep(0.01), flush(file))  # also where the disk is quick
for number in range(1, 16):
    child = forked(number, path, 60)
    while not set(path.parent.glob(".*")) - left:  # it has begun
        time.sleep(0.001)
    time.sleep(0.05 * chance.random())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left = set(path.parent.glob(".*"))
    print(number, flush=True)
    sys.stdin.readline()
"""


def example(number: int, features: int = 300) -> LaplacePosterior:
    """A posterior all of whose numbers are `number`."""
    return LaplacePosterior(number * torch.eye(features), number, number, number, number)


def check_whole(posterior: LaplacePosterior) -> None:
    number = posterior.rows
    assert (posterior.prior_precision, posterior.positions) == (number, number)
    assert torch.equal(posterior.precision, number * torch.eye(300))


def savers(task: str, path: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SAVERS, task, str(path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def parts_in(folder: Path) -> list[Path]:
    """Everything but the posteriors themselves."""
    return [path for path in folder.iterdir() if path.suffix != ".safetensors"]


@needs_fork
def test_eight_processes_save_one_name(tmp_path):
    """Every read beside them is whole, and one of what was saved; no save fails."""
    path = tmp_path / "shared.safetensors"
    save_posterior(example(1), path)
    process = savers("together", path)
    reads = 0
    while process.poll() is None:
        check_whole(load_posterior(path))
        reads += 1
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert reads > 20
    check_whole(load_posterior(path))
    assert parts_in(tmp_path) == []


@needs_fork
def test_a_killed_save_leaves_the_last_file(tmp_path):
    """What it left beside is removed by a later save, when no save can still be at it."""
    path = tmp_path / "mine.safetensors"
    save_posterior(example(1), path)
    process = savers("killed", path)
    while line := process.stdout.readline():
        assert line.strip().isdigit(), line
        check_whole(load_posterior(path))
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.wait() == 0
    left = parts_in(tmp_path)
    assert left, "no save was hit in the middle"
    save_posterior(example(2), path)
    assert sorted(parts_in(tmp_path)) == sorted(left)
    for part in left:
        os.utime(part, (0, time.time() - 2 * 3600))
    save_posterior(example(2), path)
    assert parts_in(tmp_path) == []


def test_only_our_own_leftovers_are_removed(tmp_path):
    others = [
        ".tmpAbCdEf",
        "mine.safetensors.part",
        "download.part",
        ".hidden",
        "x.bayesdiff.part",
    ]
    for name in others:
        (tmp_path / name).write_bytes(b"of another program")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".folder.bayesdiff.part").mkdir()
    os.utime(tmp_path / ".folder.bayesdiff.part", (0, 0))
    save_posterior(example(1), tmp_path / "mine.safetensors")
    left = {path.name for path in parts_in(tmp_path)}
    assert left == {*others, ".folder.bayesdiff.part"}


@contextmanager
def small_disk(folder: Path, options: str):
    """A disk of 64 kB in memory; the test is skipped where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small disk can be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def check_refused(path: Path, reason: str) -> None:
    """A save fails in a sentence that names the folder; the old file stays, and nothing else."""
    before = path.read_bytes()
    with pytest.raises(laplace_io.PosteriorFileError, match=reason) as caught:
        save_posterior(example(2), path)
    assert str(path.parent) in str(caught.value) and "another name" in str(caught.value)
    assert path.read_bytes() == before
    assert parts_in(path.parent) == []


def test_a_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", "") as disk:
        path = disk / "mine.safetensors"
        save_posterior(example(1, features=10), path)
        check_refused(path, "No space left")


def test_a_read_only_disk(tmp_path):
    with small_disk(tmp_path / "disk", "") as disk:
        path = disk / "mine.safetensors"
        save_posterior(example(1, features=10), path)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        check_refused(path, "Read-only file system")


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_any_refusal_of_the_disk(call, number, tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    save_posterior(example(1), path)

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    check_refused(path, os.strerror(number))


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    """Also without the rights of root, whom permissions do not stop."""
    path = tmp_path / "mine.safetensors"
    save_posterior(example(1), path)

    def refuse(name, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(name))

    with monkeypatch.context() as patch:
        patch.setattr(laplace_io, "open", refuse, raising=False)
        with pytest.raises(laplace_io.PosteriorFileError, match="Permission denied"):
            save_posterior(example(2), path)
    check_whole(load_posterior(path))


def test_a_cancelled_save_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    save_posterior(example(1), path)

    def cancel(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", cancel)
    with pytest.raises(KeyboardInterrupt):
        save_posterior(example(2), path)
    check_whole(load_posterior(path))
    assert parts_in(tmp_path) == []


def test_names_that_no_file_can_have(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in (
        *("folder.safetensors", "file/mine.safetensors", "a" * 300, "a\0b", "\ud800" * 300),
        *("b" * 250 + ".safetensors", "/".join(["deep"] * 1500), "/".join("a" * 1500)),
    ):
        with suppress(RecursionError):  # of the test's own making of the path
            path = tmp_path / name
        with pytest.raises(laplace_io.PosteriorFileError, match="another name") as caught:
            save_posterior(example(1), path)
        assert len(str(caught.value)) < 1000


def test_files_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "missing.safetensors", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(laplace_io.PosteriorFileError, match="cannot be read"):
            load_posterior(path)
