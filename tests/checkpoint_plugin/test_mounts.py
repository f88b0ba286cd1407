"""Which file systems hold a file of SQLite, and which are refused."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from checkpoint_plugin.database.location import locate
from checkpoint_plugin.database.mounts import find_mount, refuse_network
from checkpoint_plugin.errors import StoreOnNetwork
from checkpoint_plugin.store import Store

TABLE = r"""
sysfs /sys sysfs rw 0 0
overlay / overlay rw,lowerdir=/x 0 0
/dev/sda1 /home ext4 rw 0 0
server:/export /home/shared nfs4 rw,vers=4.2 0 0
/dev/sdb1 /home/shared/scratch xfs rw 0 0
me@host:/ /mnt/with\040space fuse.sshfs rw 0 0
/dev/sdc1 /data ext4 rw 0 0
//nas/data /data cifs rw 0 0
//nas/hidden /hidden cifs rw 0 0
tmpfs /hidden tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/etc/c.db", "overlay"),
        ("/home/me/c.db", "ext4"),
        ("/home/shared/c.db", "nfs4"),
        ("/home/shared", "nfs4"),
        ("/home/sharedness/c.db", "ext4"),
        ("/home/shared/scratch/c.db", "xfs"),
        ("/mnt/with space/c.db", "fuse.sshfs"),
        ("/data/c.db", "cifs"),
        ("/hidden/c.db", "tmpfs"),
    ],
)
def test_the_longest_path_decides_and_of_equal_ones_the_last(path: str, kind: str) -> None:
    found = find_mount(Path(path), TABLE)
    assert found is not None
    assert found.kind == kind


def write_table(folder: Path, kind: str, point: Path | str) -> Path:
    table = folder / "mounts"
    told = str(point).replace(" ", r"\040")
    table.write_text(f"overlay / overlay rw 0 0\nx {told} {kind} rw 0 0\n", encoding="utf-8")
    return table


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse.s3fs", "ceph", "lustre", "vboxsf"])
def test_a_network_file_system_is_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "a share"
    folder.mkdir()
    with pytest.raises(StoreOnNetwork, match="local disk, or use PostgreSQL") as caught:
        refuse_network(folder / "deep" / "c.db", write_table(tmp_path, kind, folder))
    assert (caught.value.kind, caught.value.point) == (kind, str(folder))


@pytest.mark.parametrize(
    "kind",
    ["overlay", "tmpfs", "ext4", "ext3", "xfs", "btrfs", "zfs", "f2fs", "fuseblk", "fuse.fuse-overlayfs", "apfs", "new-kind"],
)
def test_no_local_one_is(tmp_path: Path, kind: str) -> None:
    refuse_network(tmp_path / "c.db", write_table(tmp_path, kind, tmp_path))


def test_nor_the_root_of_a_sandbox(tmp_path: Path) -> None:
    refuse_network(tmp_path / "c.db", write_table(tmp_path, "9p", "/"))


def test_a_link_to_one_is(tmp_path: Path) -> None:
    share, link = tmp_path / "share", tmp_path / "link"
    share.mkdir()
    os.symlink(share, link)
    with pytest.raises(StoreOnNetwork):
        refuse_network(link / "c.db", write_table(tmp_path, "nfs", share))


def test_where_nobody_tells_nothing_is(tmp_path: Path) -> None:
    refuse_network(tmp_path / "c.db", tmp_path / "no such table")


@pytest.mark.parametrize("create", [True, False])
def test_a_store_there_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: bool) -> None:
    share = tmp_path / "share"
    share.mkdir()
    table = write_table(tmp_path, "nfs", share)
    monkeypatch.setattr("checkpoint_plugin.database.opening.refuse_network", functools.partial(refuse_network, mounts=table))
    with pytest.raises(StoreOnNetwork, match=r"share.* \(nfs\)"):
        Store(locate(f"sqlite:///{share / 'c.db'}"), create=create)
    assert list(share.iterdir()) == []
