"""Files that belong together replace older ones together, whenever the process is killed.

New files are written to a scratch folder beside the old ones. When all are whole, a journal there
names the moves that put them in place. From then on the new set counts: whoever comes next, the
same process or another one after a kill, makes the moves that are left. Without a journal the old
set counts and the scratch folder is removed. A lock file in it tells scratch of a dead process.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path

from keras_edgeq.errors import ExportError
from keras_edgeq.files.lock import FileLock, locked

LOCK, JOURNAL, NEW, OLD = "keras_edgeq.lock", "journal.json", "new", "old"


@contextmanager
def staged(
    folder: Path,
    name: str,
    is_manifest: bool = False,
    stale: Callable[[], Iterable[str]] = tuple,
) -> Iterator[Path]:
    """Yield an empty folder to write in; at the end what is in it is moved to `folder` together.

    An exception in the context leaves `folder` as it was.

    Args:
        folder: made if need be.
        name: of the file that stands for the set. Two sets of one name never mix: the one that
            ends last replaces the other.
        is_manifest: that file describes the others; while they are exchanged it is not there.
        stale: gives the names of files of the older set that the new one has not; they are removed.

    Raises:
        ExportError: the place cannot be written; an older set stays.
    """
    scratch, is_new = None, not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        recover(folder, name)
        scratch = _Scratch.make(folder, name)
        yield scratch.new
        with locked(_swap_lock(folder, name)):
            _recover(folder, name)
            scratch.swap(name if is_manifest else None, stale())
    except OSError as error:
        place = folder if is_manifest else folder / name
        reason = _reason(error)
        if scratch is not None:
            reason = reason.replace(str(scratch.new), str(folder))
        raise ExportError(f"Cannot write {place}: {reason}.") from error
    finally:
        if scratch is not None:
            scratch.leave()
        if is_new:
            with suppress(OSError):  # it is not empty: all went well
                folder.rmdir()


def recover(folder: Path, name: str) -> None:
    """Finish what a killed process began: swap its set in where it was whole, else drop it.

    Raises:
        OSError: there is something to do, and the place cannot be written.
    """
    if next(_scratches(folder, name), None) is not None:
        with locked(_swap_lock(folder, name)):
            _recover(folder, name)


@dataclass(frozen=True)
class _Moves:
    """What puts a set in place.

    Args:
        out: names that leave the folder first, in order.
        put: names that come in, in order.
    """

    out: tuple[str, ...]
    put: tuple[str, ...]


class _Scratch:
    """A scratch folder that this process has locked: what is new, and what was old."""

    def __init__(self, path: Path, lock: FileLock):
        self.path, self._lock = path, lock
        self.new, self.old, self.journal = path / NEW, path / OLD, path / JOURNAL

    @classmethod
    def make(cls, folder: Path, name: str) -> _Scratch:
        """Make one. Another process may take it for a dead one until it is locked."""
        while True:
            path = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
            lock = FileLock(path / LOCK)
            try:
                if lock.take():
                    scratch = cls(path, lock)
                    scratch.new.mkdir()
                    return scratch
            except FileNotFoundError:
                continue

    @classmethod
    def of_dead(cls, path: Path) -> _Scratch | None:
        """Take over the scratch of a process that is gone, None if it lives."""
        lock = FileLock(path / LOCK)
        with suppress(FileNotFoundError):  # it has just ended
            if lock.take() and lock.is_sure:
                return cls(path, lock)
        lock.release()
        return None

    def swap(self, manifest: str | None, stale: Iterable[str]) -> None:
        """Move the new files to their place and the old ones away; all, or none on an error."""
        names = sorted(os.listdir(self.new))
        if not names:
            raise OSError("nothing was written")
        put = tuple(sorted(names, key=lambda one: one == manifest))  # the manifest comes last
        first = (manifest,) if manifest in names and len(names) > 1 else ()
        moves = _Moves((*first, *(one for one in stale if one not in names)), put)
        if not moves.out and len(put) == 1 and not self._meets_folder(put[0]):
            os.replace(self.new / put[0], self._folder / put[0])  # one file: one move
            return
        part = self.journal.with_suffix(".part")
        part.write_text(json.dumps(asdict(moves)), encoding="utf-8")
        os.replace(part, self.journal)
        try:
            self._make(moves)
        except BaseException:
            self._undo(moves)
            self.journal.unlink()
            raise
        self.journal.unlink()

    def finish(self) -> None:
        """Make the moves that a killed process left."""
        if self.journal.exists():
            read = json.loads(self.journal.read_text(encoding="utf-8"))
            moves = _Moves(*(tuple(map(_plain, read[part])) for part in ("out", "put")))
            self._make(moves)
            self.journal.unlink()

    def leave(self) -> None:
        """Remove the folder. One with a journal, whose moves failed both ways, stays for later."""
        if not self.journal.exists():
            for part in (self.new, self.old):
                shutil.rmtree(part, ignore_errors=True)
            self._lock.release(remove=True)
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.release()

    @property
    def _folder(self) -> Path:
        return self.path.parent

    def _meets_folder(self, name: str) -> bool:
        """Tell whether a folder is to be moved, which nothing can be moved onto."""
        return _is_folder(self.new / name) or _is_folder(self._folder / name)

    def _make(self, moves: _Moves) -> None:
        """Make the moves; those that were made already are left out."""
        self.old.mkdir(exist_ok=True)
        for name in moves.out:
            waits = name not in moves.put or os.path.lexists(self.new / name)
            if waits and os.path.lexists(self._folder / name):
                os.replace(self._folder / name, self.old / name)
        for name in moves.put:
            if os.path.lexists(self.new / name):
                self._keep_old(name)
                os.replace(self.new / name, self._folder / name)

    def _keep_old(self, name: str) -> None:
        """Keep an older file until the swap is done, in its place where that is possible."""
        target, old = self._folder / name, self.old / name
        if not os.path.lexists(target) or os.path.lexists(old):
            return
        if not self._meets_folder(name):
            try:
                os.link(target, old, follow_symlinks=False)
                return
            except (OSError, NotImplementedError):  # a file system without links
                pass
        os.replace(target, old)

    def _undo(self, moves: _Moves) -> None:
        for name in (*reversed(moves.put), *moves.out):
            new, target, old = self.new / name, self._folder / name, self.old / name
            if name in moves.put and not os.path.lexists(new) and os.path.lexists(target):
                os.replace(target, new)
            if os.path.lexists(old):
                os.replace(old, target)


def remove(path: Path) -> None:
    """Delete a file or folder, where there is one."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _recover(folder: Path, name: str) -> None:
    for path in list(_scratches(folder, name)):
        if not (path / LOCK).exists():
            # Not locked yet, perhaps by a process that lives: it will make another one.
            with suppress(OSError):
                path.rmdir()
        elif (dead := _Scratch.of_dead(path)) is not None:
            try:
                dead.finish()
            finally:
                dead.leave()


def _scratches(folder: Path, name: str) -> Iterator[Path]:
    """Yield the scratch folders of a set, of live processes and dead ones."""
    prefix = f".{name}."
    for path in folder.glob(f"{escape(prefix)}*"):
        if len(path.name) == len(prefix) + 8 and _is_folder(path):
            with suppress(OSError):  # it may be removed just now
                inside = os.listdir(path)
                if LOCK in inside or not inside:
                    yield path


def _swap_lock(folder: Path, name: str) -> Path:
    return folder / f".{name}.lock"


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _plain(name: str) -> str:
    """Return the name of a file in a folder; a journal of somebody else could hold other paths."""
    if name != os.path.basename(name) or name in ("", ".", ".."):
        raise OSError(f"a journal names {name!r}, which is not a file of this folder")
    return name


def _reason(error: OSError) -> str:
    text = error.strerror or str(error) or type(error).__name__
    return text.splitlines()[0].rstrip(".")
