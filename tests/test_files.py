"""Files are whole or absent, and nothing but a regular file is ever replaced."""

import os
from pathlib import Path

import pytest

from pocketvision.files import check_writable, write_text


def test_a_pipe_is_not_replaced(tmp_path: Path):
    """A pipe as a device would be: a rename onto it would leave a file in its place."""
    os.mkfifo(pipe := tmp_path / "pipe")
    (link := tmp_path / "link").symlink_to(pipe)
    (folder := tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    for path in (pipe, link, folder):
        for refused in (check_writable, lambda path: write_text(path, "text")):
            with pytest.raises(FileExistsError, match="no regular file"):
                refused(path)
    assert sorted(tmp_path.iterdir()) == before
    assert (pipe.is_fifo(), link.is_symlink()) == (True, True)


@pytest.mark.parametrize("there", [True, False])
def test_what_a_link_leads_to_is_written(tmp_path: Path, there: bool):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "target"
    if there:
        target.write_text("old")
    (link := tmp_path / "link").symlink_to(target)
    assert write_text(link, "new") == link
    assert (link.is_symlink(), target.read_text()) == (True, "new")
    assert list(target.parent.iterdir()) == [target]


def test_a_check_leaves_nothing(tmp_path: Path):
    check_writable(tmp_path / "new" / "folder" / "file")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        check_writable(tmp_path / "file" / "below" / "file")
