"""POSIX access control lists, as far as giving one user rights on a file or folder takes, and nobody else any.

The kernel's form (linux/posix_acl_xattr.h): version 2 as u32, then entries of tag u16, permissions u16, id u32, little
endian, sorted by tag and id. Entries of named users and of groups count only as far as the mask entry allows.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

R, W, X = 4, 2, 1

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF  # the id of entries that name nobody
_MASKED = (_USER, _GROUP_OBJ, _GROUP)

Entries = dict[tuple[int, int], int]  # (tag, id) -> permissions


def allowed(path: Path, uid: int, gid: int, wanted: int) -> bool:
    """Whether a user of one group, without capabilities, has all of the wanted permissions."""
    status, entries = path.stat(), _read(path)
    mask = entries.get((_MASK, _NOBODY), R | W | X)
    if status.st_uid == uid:
        return _covers(entries[_USER_OBJ, _NOBODY], wanted)
    if (_USER, uid) in entries:
        return _covers(entries[_USER, uid] & mask, wanted)
    groups = [entries[_GROUP, gid]] if (_GROUP, gid) in entries else []
    if status.st_gid == gid:
        groups.append(entries[_GROUP_OBJ, _NOBODY])
    if groups:
        return any(_covers(permissions & mask, wanted) for permissions in groups)
    return _covers(entries[_OTHER, _NOBODY], wanted)


def allow(path: Path, uid: int, wanted: int) -> None:
    """Gives a user permissions, and nobody else any. Raises OSError where the file system has no such lists."""
    entries = _read(path)
    mask = entries.get((_MASK, _NOBODY))
    if mask is not None:
        # The mask is about to allow more; those whom it held back until now lose that in their own entries.
        entries = {key: value & mask if key[0] in _MASKED else value for key, value in entries.items()}
    entries[_USER, uid] = entries.get((_USER, uid), 0) | wanted
    entries[_MASK, _NOBODY] = (entries[_GROUP_OBJ, _NOBODY] if mask is None else mask) | wanted
    packed = (struct.pack("<HHI", tag, permissions, id_) for (tag, id_), permissions in sorted(entries.items()))
    os.setxattr(path, _ATTRIBUTE, _VERSION + b"".join(packed))


def _covers(permissions: int, wanted: int) -> bool:
    return permissions & wanted == wanted


def _read(path: Path) -> Entries:
    try:
        value = os.getxattr(path, _ATTRIBUTE)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
            raise
        mode = path.stat().st_mode
        return {(_USER_OBJ, _NOBODY): mode >> 6 & 7, (_GROUP_OBJ, _NOBODY): mode >> 3 & 7, (_OTHER, _NOBODY): mode & 7}
    return {(tag, id_): permissions for tag, permissions, id_ in struct.iter_unpack("<HHI", value[len(_VERSION) :])}
