"""A folder appears whole or not at all, and a killed run's leftovers are settled by the next."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

from squeezebert.files.atomic import new_folder


def test_a_finished_folder_replaces_the_old_one(tmp_path):
    place = tmp_path / "out"
    for content in ("one", "two"):
        with new_folder(place) as folder:
            assert folder.parent == place.parent
            (folder / "file").write_text(content)
        assert (place / "file").read_text() == content
        assert list(tmp_path.iterdir()) == [place]


def test_an_error_leaves_the_old_folder(tmp_path):
    place = tmp_path / "deep" / "out"
    with new_folder(place) as folder:
        (folder / "file").write_text("old")
    with pytest.raises(RuntimeError), new_folder(place) as folder:
        (folder / "file").write_text("half")
        raise RuntimeError
    assert (place / "file").read_text() == "old"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be asked whether they live")
@pytest.mark.parametrize("moment", ["inside", "between"])
def test_a_kill_loses_nothing(tmp_path, moment):
    place = tmp_path / "out [1]"
    with new_folder(place) as folder:
        (folder / "file").write_text("old")
    script = """
        import os, signal, sys
        from pathlib import Path
        from squeezebert.files.atomic import new_folder
        rename = Path.rename
        def die(*_): os.kill(os.getpid(), signal.SIGKILL)
        with new_folder(Path(sys.argv[1])) as folder:
            (folder / "file").write_text("half")
            if sys.argv[2] == "inside": die()
            Path.rename = lambda self, to: die() if ".new-" in self.name else rename(self, to)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(place), moment], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert place.exists() == (moment == "inside")
    with pytest.raises(RuntimeError), new_folder(place):
        raise RuntimeError
    assert (place / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]


def test_a_running_neighbour_is_left_alone(tmp_path):
    place = tmp_path / "out"
    with new_folder(place) as first, new_folder(place) as second:
        assert first != second
        assert first.is_dir()
