"""The folder in which a squeezed model is made, `OUTPUT.squeezing`: whose it is, and when it may go.

Serves `squeeze.py`. Every change that a kill could cut in two is a rename.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squeezebert.files.atomic import settle_leftovers
from squeezebert.files.errors import FolderError
from squeezebert.training.checkpoint import foreign_files
from squeezebert.training.general import RECORD as HEALED
from squeezebert.training.runs import PROGRESS_FOLDER, latest_save
from squeezebert.training.stepping import MILESTONES
from squeezebert.workflows.options import SqueezePlaces
from squeezebert.workflows.squeezed import RECORD

_JOB = "job.json"
# How the parts of a job are told of that are no single option
_TOLD = {
    "corpus": "text",
    "text": "--column, --encoding or --max-length",
    "healing": "--heal",
    "shape": "--groups, --rank or --shape",
}


@dataclass
class Workshop:
    """Where one job is done, and where its result goes."""

    output: Path
    """The result's folder, absolute."""
    folder: Path
    """The folder of everything on the way, beside it."""
    job: str = field(default="", init=False)
    """A hash of what is made here, and of what."""
    new: bool = field(default=False, init=False)
    """Whether this run began it."""

    @classmethod
    def beside(cls, places: SqueezePlaces) -> Workshop:
        """Find both folders. Raises `FolderError` for an output that would swallow what is read, or the user."""
        output = Path(places.output).resolve()
        folder = output.with_name(f"{output.name}.squeezing") if output.name else output
        if output in (Path.cwd(), *Path.cwd().parents):
            raise FolderError(f"--output {places.output}: the folder you are in; name one of its own")
        for read in (places.checkpoint, *places.text):
            place = Path(read).resolve()
            if not Path(read).exists():
                continue
            if place == output:
                raise FolderError(f"--output {places.output}: that is what is read; choose another folder")
            if output in place.parents or place == folder or folder in place.parents:
                raise FolderError(f"--output {places.output}: {read} lies where it would be written; choose another")
            if place in output.parents and not any(place.glob("*.txt*")):
                raise FolderError(f"--output {places.output}: it lies in {read}, which is read whole; choose another")
        return cls(output, folder)

    def finished(self, command: str) -> dict[str, Any] | None:
        """Clear up after a job that was done when it was killed; return its record if it was this command's."""
        if self.output.parent.is_dir():
            settle_leftovers(self.output)
        done = self._hidden("done").exists()
        for kind in ("done", "rest"):
            _remove(self._hidden(kind))
        record, job = _read(self.output / RECORD), _job(self.folder)
        if record is not None and job is not None and record.get("job") == _hash(job["options"]):
            self.clear()
            done = True
        return record if done and record is not None and record.get("command") == command else None

    def check_output(self, overwrite: bool) -> None:
        """Raise `FolderError` for an output that holds a model, unless it may be replaced, or anything else."""
        output = self.output
        output.parent.mkdir(parents=True, exist_ok=True)  # where nothing can be written, say so before hours of work
        if output.exists() and not output.is_dir():
            raise FolderError(f"{output} is a file; --output takes a folder")
        names = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
        if not names:
            return
        if "config.json" not in names:
            raise FolderError(f"{output} is not empty and holds no model: choose another --output")
        if not overwrite:
            raise FolderError(f"{output} holds a model already: choose another --output, or --overwrite it")
        other = foreign_files(output)
        if other:
            raise FolderError(
                f"{output} holds {', '.join(other[:3])} beside a model, which --overwrite would delete: move it away, "
                "or choose another --output"
            )

    def claim(self, options: dict[str, Any], command: str, overwrite: bool, report: Callable[[str], None]) -> None:
        """Note what is being made here. What another job left is used where it fits, and never lost unsaid.

        Raises `FolderError` when there is another job's healing, unless it may be overwritten, or something unknown.
        """
        options = json.loads(json.dumps(options))
        there = _job(self.folder)
        self.new = self.new or not self.folder.exists()
        part = self.folder / f".{_JOB}.new"
        if there is None and self.folder.exists() and {*self.folder.iterdir()} - {part}:
            raise FolderError(
                f"{self.folder} is in the way, and not what squeeze left there: move it, or choose another --output"
            )
        differing = [] if there is None else list(_differences(there["options"], options))
        if there is not None and differing:
            healed = self.folder / "healed"
            if _took_long(healed) and not overwrite:
                raise FolderError(
                    f"{self.folder} holds a run that was cut off, with another {', '.join(differing[:3])}: repeat its "
                    f"command to finish it ({there['command']}), choose another --output, or --overwrite it"
                )
            if healed.exists():
                report(f"giving up the run that was cut off: {there['command']}")
                self._discard(healed, "rest")
            there = None
        options = {**(there or {}).get("options", {}), **options}
        self.job = _hash(options)
        if there is None or there["options"] != options:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps({"options": options, "command": command}), encoding="utf-8")
            part.replace(self.folder / _JOB)

    def give_up(self, diverged: bool = False) -> None:
        """Delete the folder after an error, where it holds nothing that took long, or healing that `diverged`."""
        healed = self.folder / "healed"
        if diverged and healed.exists():
            self._discard(healed, "rest")
        if self.new and self.folder.exists() and not _took_long(healed):
            self._discard(self.folder, "rest")

    def clear(self) -> None:
        """Delete the folder, in one step as far as the next run can see."""
        self._discard(self.folder, "done")

    def _hidden(self, kind: str) -> Path:
        """The place where a folder is deleted: a finished job's, or the rest of one that was given up."""
        return self.output.with_name(f".{self.folder.name}.{kind}")

    def _discard(self, folder: Path, kind: str) -> None:
        _remove(self._hidden(kind))
        folder.rename(self._hidden(kind))
        _remove(self._hidden(kind))


def _took_long(healed: Path) -> bool:
    """Whether there is healing to lose: a finished run, a milestone, or a save to go on from."""
    kept = (healed / HEALED).exists() or any((healed / MILESTONES).glob("*"))
    return kept or latest_save(healed / PROGRESS_FOLDER) is not None


def _differences(there: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """What of a job is other than it was, by the names of its options where there are some."""
    for name, value in now.items():
        before = there.get(name, value)
        if before == value:
            continue
        if name != "shape" and isinstance(value, dict) and isinstance(before, dict):
            yield from (f"--{part.replace('_', '-')}" for part in value if before.get(part) != value[part])
        else:
            yield _TOLD.get(name, name)


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _read(path: Path) -> dict[str, Any] | None:
    """Return a JSON object, or None where there is none."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None


def _job(folder: Path) -> dict[str, Any] | None:
    """Return what a folder was last claimed for, or None for one that was not."""
    told = _read(folder / _JOB)
    return told if told is not None and isinstance(told.get("options"), dict) and "command" in told else None


def _hash(options: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
