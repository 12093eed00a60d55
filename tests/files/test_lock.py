"""Only one run writes an output at a time, whether it ends or is killed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from squeezebert.files.errors import FolderError
from squeezebert.files.lock import only_run

HOLD = """
import sys, time
from squeezebert.files.lock import only_run
with only_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path, monkeypatch):
    output = tmp_path / "model"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, output], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FolderError, match="model: another run is writing it: wait"), only_run("./model"):
            pass
        with only_run(tmp_path / "other"):
            pass
        with monkeypatch.context() as patched:
            patched.setenv("RANK", "1")  # another process of the same launch
            with only_run(output):
                pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with only_run(output):
            assert not output.exists()
    finally:
        holder.kill()
        holder.wait()


def test_the_right_ends_with_the_block_even_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), only_run(tmp_path):
        raise ZeroDivisionError
    with only_run(tmp_path):
        pass


def test_a_lock_inside_holds_whatever_the_folder_of_temporary_files(tmp_path, monkeypatch):
    with only_run(tmp_path, inside=True):
        hold = HOLD.replace("only_run(sys.argv[1])", "only_run(sys.argv[1], inside=True)")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setenv("TMPDIR", str(tmp_path / "elsewhere"))
        other = subprocess.run([sys.executable, "-c", hold, tmp_path], capture_output=True, text=True, check=False)
    assert "another run is writing it" in other.stderr
