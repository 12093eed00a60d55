"""How many threads may be asked for."""

from __future__ import annotations

import os

import pytest

from squeezebert.files.cores import check_threads, usable_cores
from squeezebert.files.errors import OptionError


def test_threads_are_whole_numbers_that_a_machine_can_bear():
    for good in (None, 1, 16, 4 * (os.cpu_count() or 1)):
        check_threads(good)
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(OptionError, match=f"threads = {wrong!r}: give a whole number from 1"):
            check_threads(wrong)
    with pytest.raises(OptionError, match=r"--threads 100000: this machine has \d+ cores; give \d+ at most"):
        check_threads(100_000, "--threads")
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
