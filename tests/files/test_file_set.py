"""Sets of files replace older sets whole, at kills and errors anywhere, and one at a time."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import keras_edgeq
from keras_edgeq.errors import ExportError
from keras_edgeq.files import open_file, read_json, sha256_of, write_whole
from keras_edgeq.files.file_set import LOCK, recover, staged
from keras_edgeq.files.lock import FileLock, locked

# A process of file_set.py alone, which kills itself in front of its n-th change to the disk.
CHILD = """
import os, signal, sys, types
from pathlib import Path
package = types.ModuleType("keras_edgeq")
package.__path__ = [sys.argv[1]]
sys.modules["keras_edgeq"] = package
from keras_edgeq.files import file_set

folder, left = Path(sys.argv[2]), int(sys.argv[3])

def counted(change):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*args, **options)
    return call

for name in ("replace", "link", "unlink", "mkdir", "rmdir", "open"):
    setattr(os, name, counted(getattr(os, name)))
Path.write_text = counted(Path.write_text)
with file_set.staged(folder, "report.json", True, lambda: ["only_old", "old_dir"]) as new:
    for name in ("a", "b", "report.json"):
        (new / name).write_text("new")
    (new / "dir").mkdir()
    (new / "dir" / "inside").write_text("new")
"""
OLD = {
    "a": "old", "b": "old", "only_old": "old", "report.json": "old", "mine.txt": "mine",
    "dir/inside": "old", "dir/gone": "old", "old_dir/inside": "old",
}  # fmt: skip
NEW = {"a": "new", "b": "new", "report.json": "new", "mine.txt": "mine", "dir/inside": "new"}


def fill(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def held(folder, hidden=False):
    files = [f for f in folder.rglob("*") if f.is_file()]
    names = {f.relative_to(folder).as_posix(): f.read_text() for f in files}
    return {name: text for name, text in names.items() if hidden or not name.startswith(".")}


def run_child(folder, changes):
    package = str(Path(keras_edgeq.__file__).parent)
    command = [sys.executable, "-c", CHILD, package, str(folder), str(changes)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_kill_at_any_change_leaves_the_old_set_or_one_that_is_finished_as_the_new(tmp_path):
    seen, changes = set(), 0
    while True:
        folder = tmp_path / str(changes)
        fill(folder, OLD)
        done = run_child(folder, changes)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        after = held(folder)
        # Whoever sees the manifest sees a whole set.
        assert "report.json" not in after or after in (OLD, NEW)
        recover(folder, "report.json")
        assert held(folder, hidden=True) in (OLD, NEW)
        assert after not in (OLD, NEW) or held(folder) in (after, NEW)
        recovered = "new" if held(folder) == NEW else "old"
        seen.add(("report.json" in after, recovered))
        changes += 1
    assert held(folder, hidden=True) == NEW
    assert seen == {(True, "old"), (True, "new"), (False, "new")}
    assert changes > 20


def test_kills_in_a_row_end_in_a_whole_set(tmp_path):
    fill(tmp_path, OLD)
    for changes in range(2, 40, 3):
        run_child(tmp_path, changes)
    recover(tmp_path, "report.json")
    assert held(tmp_path, hidden=True) == NEW


# The journal, three that go, the old dir, four that come; without links the old a and b, too.
@pytest.mark.parametrize(("links", "moves"), [(True, 9), (False, 11)])
@pytest.mark.parametrize("fails_at", range(12))
def test_an_error_at_any_move_puts_every_old_file_back(
    tmp_path, monkeypatch, fails_at, links, moves
):
    fill(tmp_path, OLD)
    real, count = os.replace, 0

    def replace(source, target):
        nonlocal count
        count += 1
        if count == fails_at + 1:
            raise OSError(28, "No space left on device")
        return real(source, target)

    def no_link(*_, **__):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "replace", replace)
    if not links:
        monkeypatch.setattr(os, "link", no_link)

    def write():
        with staged(tmp_path, "report.json", True, lambda: ["only_old", "old_dir"]) as new:
            fill(new, {name: text for name, text in NEW.items() if name != "mine.txt"})

    if fails_at < moves:
        with pytest.raises(ExportError, match="No space left on device"):
            write()
        assert held(tmp_path, hidden=True) == OLD
    else:
        write()
        assert held(tmp_path, hidden=True) == NEW
    assert count >= min(fails_at + 1, moves)


def test_an_exception_in_the_block_leaves_the_old_set_and_no_scraps(tmp_path):
    fill(tmp_path, OLD)

    def write():
        with staged(tmp_path, "report.json", True) as new:
            (new / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert held(tmp_path, hidden=True) == OLD


def test_files_folders_and_links_replace_each_other(tmp_path):
    other = tmp_path / "elsewhere"
    fill(other, {"kept": "kept"})
    out = tmp_path / "out"
    fill(out, {"was_folder/inside": "old", "was_file": "old"})
    (out / "was_link").symlink_to(other)
    with staged(out, "set") as new:
        fill(new, {"was_folder": "new", "was_file/inside": "new", "was_link/inside": "new"})
    assert held(out, hidden=True) == {
        "was_folder": "new", "was_file/inside": "new", "was_link/inside": "new",
    }  # fmt: skip
    assert held(other) == {"kept": "kept"}


def test_scratch_of_a_live_writer_stays_and_two_writers_end_with_the_set_of_the_last(tmp_path):
    with staged(tmp_path, "report.json", True) as first:
        (first / "a").write_text("first")
        with staged(tmp_path, "report.json", True) as second:
            fill(second, {"a": "second", "b": "second", "report.json": "second"})
        assert (first / "a").read_text() == "first"
        (first / "report.json").write_text("first")
    assert held(tmp_path, hidden=True) == {"a": "first", "b": "second", "report.json": "first"}


def test_writers_in_threads_never_mix_their_sets(tmp_path):
    seen, stop = [], threading.Event()

    def write(mark):
        for number in range(20):
            with staged(tmp_path, "report.json", True) as new:
                fill(new, dict.fromkeys(("a", "b", "report.json"), f"{mark}{number}"))

    def read():
        while not stop.is_set():
            with locked(tmp_path / ".report.json.lock"):
                files = [tmp_path / name for name in ("a", "b", "report.json")]
                seen.append({file.read_text() for file in files if file.exists()})

    threads = [threading.Thread(target=write, args=(mark,)) for mark in "xyz"]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    reader.join()
    assert all(len(values) <= 1 for values in seen)
    assert len(held(tmp_path, hidden=True)) == 3


def test_a_folder_of_the_user_that_looks_like_scratch_is_left_alone(tmp_path):
    fill(tmp_path, {".sim.keras.abcdefgh/notes.txt": "mine", ".sim.keras.d/notes.txt": "mine"})
    write_whole(tmp_path / "sim.keras", lambda path: path.write_text("new"))
    assert held(tmp_path, hidden=True) == {
        ".sim.keras.abcdefgh/notes.txt": "mine", ".sim.keras.d/notes.txt": "mine",
        "sim.keras": "new",
    }  # fmt: skip


def test_scratch_of_a_dead_writer_goes_with_the_next_write_to_the_same_place_only(tmp_path):
    for name in ("a", "b"):
        fill(tmp_path, {f".{name}.12345678/{LOCK}": "", f".{name}.12345678/new/{name}": "half"})
    write_whole(tmp_path / "a", lambda path: path.write_text("new"))
    assert set(held(tmp_path, hidden=True)) == {"a", f".b.12345678/{LOCK}", ".b.12345678/new/b"}


def test_a_journal_that_names_other_places_moves_nothing(tmp_path):
    out = tmp_path / "out"
    fill(tmp_path, {"victim": "mine"})
    moves = {"out": ["../victim"], "put": []}
    fill(out, {f".a.12345678/{LOCK}": "", ".a.12345678/journal.json": json.dumps(moves)})
    with pytest.raises(ExportError, match=r"\.\./victim"):
        write_whole(out / "a", lambda path: path.write_text("new"))
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_lock_is_free_again_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import fcntl, os, sys, time\n"
        f"fcntl.flock(os.open({str(path)!r}, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)\n"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        assert not FileLock(path).take()
        with pytest.raises(TimeoutError, match="another process"), locked(path, seconds=0.05):
            pass
        holder.kill()
        holder.wait()
    with locked(path):
        assert path.exists()
    assert not path.exists()


def test_a_pipe_or_device_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        with pytest.raises(OSError, match="not a file"), open_file(path):
            pass
    with pytest.raises(ExportError, match="not a file"):
        read_json(tmp_path / "pipe", 100, ExportError)


def test_the_digest_of_a_folder_is_of_names_and_contents(tmp_path):
    fill(tmp_path, {"a/x": "1", "a/y": "2", "b/x": "1", "b/y": "2", "c/x": "1", "c/z": "2"})
    one, same, other = (sha256_of(tmp_path / name) for name in "abc")
    assert one == same != other
