"""On what kind of file system a file lies: SQLite's write-ahead log works on local ones only."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from checkpoint_plugin.errors import StoreOnNetwork

__all__ = ["MOUNTS", "Mount", "find_mount", "refuse_network"]

MOUNTS: Final = Path("/proc/self/mounts")
NETWORK: Final = frozenset(
    (
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "davfs2",
        "drvfs",
        "gcsfuse",
        "gfarm",
        "glusterfs",
        "gpfs",
        "lustre",
        "moosefs",
        "mount-s3",
        "mountpoint-s3",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "panfs",
        "prl_fs",
        "pvfs2",
        "rclone",
        "s3fs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "sshfs",
        "vboxsf",
        "vmhgfs",
        "vmhgfs-fuse",
    )
)
"""Those whose files other hosts see, too, or that share no memory between the processes of this one. Whoever is not named here,
as any new kind, is taken for local: to refuse a good disk would be worse."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system.

    Args:
        point: the folder where it begins.
        kind: of file system, as the kernel calls it.
    """

    point: str
    kind: str

    @property
    def is_network(self) -> bool:
        """Whether SQLite's log would be unsafe there."""
        if self.point == "/" and self.kind == "9p":
            return False  # how a sandbox such as gVisor shows its own root, which nobody else has
        return self.kind.lower().removeprefix("fuse.") in NETWORK


def find_mount(path: Path, mounts: str) -> Mount | None:
    """The mount that holds a path.

    Args:
        path: absolute, without links; it need not exist.
        mounts: text like that of `/proc/self/mounts`.

    Returns:
        The one with the longest path, of equal ones the last, which hides the others; `None` where none fits.
    """
    found: Mount | None = None
    below = f"{path}/"  # a host may have hundreds of mounts, and every store that is opened asks
    for line in mounts.splitlines():
        fields = line.split(" ", 3)
        if len(fields) < 3:
            continue
        point = _plain(fields[1])
        if below.startswith(f"{point.rstrip('/')}/") and (found is None or len(point) >= len(found.point)):
            found = Mount(point, fields[2])
    return found


def refuse_network(path: Path, mounts: Path = MOUNTS) -> None:
    """Refuse a file on a network file system: its log is shared memory, which two hosts do not share.

    Args:
        path: of the database.
        mounts: the table of mounts; where there is none, as outside Linux, nothing is refused.

    Raises:
        StoreOnNetwork: it lies, or would lie, on one.
    """
    try:
        text = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    mount = find_mount(Path(os.path.realpath(path)), text)
    if mount is not None and mount.is_network:
        raise StoreOnNetwork(str(path), mount.point, mount.kind)


def _plain(text: str) -> str:
    """A path as the table writes it, with spaces and the like as octal numbers."""
    return text if "\\" not in text else re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
