"""YAML files that people edit: nothing is lost in reading, and writing is whole or not at all."""

from __future__ import annotations

import pytest

from squeezebert.files.errors import OptionError
from squeezebert.files.places import check_place
from squeezebert.files.settings import read_settings, write_settings


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "labels:\n  rude: {block: 0.9}\n  spam: {block: 0.9}\n  rude: {review: 0.1}\n",
            "rude is there twice.* line 4",
        ),
        ('1: a\n"1": b\n', "1 is there twice.* line 2"),
        ("a: {b: {c: 1, c: 1}}", "c is there twice"),
        ("a: [", "cannot be read as a policy"),
        ("a: " + "1" * 5000, "cannot be read as a policy"),
        ("[" * 5000, "cannot be read as a policy"),
        ("a: 2001-99-99", "cannot be read as a policy"),
    ],
)
def test_what_would_be_lost_is_refused(tmp_path, text, named):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=named) as caught:
        read_settings(path, "policy")
    assert str(path) in str(caught.value)


def test_names_of_different_places_may_be_equal(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("a: &first {x: 1}\nb: {<<: *first, y: 2}\nc: {x: 1, y: 2}\n")
    assert read_settings(path, "policy") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1, "y": 2}}


def test_what_is_written_is_read_again_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "p.yaml"
    for told in ({"größe": {"a": 1.5}}, {"b": None}):
        check_place(str(path))
        write_settings(path, told)
        assert read_settings(path, "policy") == told
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.yaml"]


def test_an_output_that_cannot_be_written_is_named_as_given_and_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    for place, cause in (("none/p.yaml", "no folder"), ("folder", "a folder"), ("a" * 300, "cannot be written")):
        with pytest.raises(OptionError, match=cause) as caught:
            check_place(str(tmp_path / place))
        with pytest.raises(OptionError, match="cannot be written") as later:
            write_settings(tmp_path / place, {"a": 1})
        for error in (caught, later):
            assert f"{tmp_path / place}: " in str(error.value)
            assert ".part" not in str(error.value)
    assert [entry.name for entry in tmp_path.rglob("*")] == ["folder"]


def test_a_file_in_a_folder_that_is_read_is_refused(tmp_path):
    (tmp_path / "posts" / "rude").mkdir(parents=True)
    (tmp_path / "posts-2").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "posts", target_is_directory=True)
    for place in ("posts/out.txt", "posts/rude/out.txt", "alias/rude/out.txt", "posts-2/../posts/out.txt"):
        with pytest.raises(OptionError, match=r"lies in .*posts, a folder that is read"):
            check_place(str(tmp_path / place), others=(None, "-", str(tmp_path / "posts")))
    for place in ("out.txt", "posts-2/out.txt"):
        check_place(str(tmp_path / place), others=(str(tmp_path / "posts"), "a\0b", "a" * 5000))
    assert not [*tmp_path.rglob("*.txt"), *tmp_path.rglob("*.part")]
