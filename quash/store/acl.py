"""POSIX access control lists, as far as letting one user walk through a folder takes: the permission x, nothing more.

The kernel's form (linux/posix_acl_xattr.h): version 2 as u32, then entries of tag u16, permissions u16, id u32, little
endian, sorted by tag and id. Entries of named users and of groups count only as far as the mask entry allows.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NOBODY = 0xFFFFFFFF  # the id of entries that name nobody
_MASKED = (_USER, _GROUP_OBJ, _GROUP)
_X = 1

Entries = dict[tuple[int, int], int]  # (tag, id) -> permissions


def may_traverse(folder: Path, uid: int, gid: int) -> bool:
    """Whether a user without other groups and without capabilities may walk through a folder."""
    status = folder.stat()
    if status.st_uid == uid:
        return bool(status.st_mode & stat.S_IXUSR)
    entries = _read(folder)
    mask = entries.get((_MASK, _NOBODY), 7)
    if (_USER, uid) in entries:
        return bool(entries[_USER, uid] & mask & _X)
    groups = [entries[_GROUP, gid]] if (_GROUP, gid) in entries else []
    if status.st_gid == gid:
        groups.append(entries[_GROUP_OBJ, _NOBODY])
    if groups:
        return any(permissions & mask & _X for permissions in groups)
    return bool(entries[_OTHER, _NOBODY] & _X)


def allow_traverse(folder: Path, uid: int) -> None:
    """Gives a user x on a folder, and nobody anything else. Raises OSError where the file system has no such lists."""
    entries = _read(folder)
    mask = entries.get((_MASK, _NOBODY))
    if mask is not None and not mask & _X:
        # The mask must allow x from now on, so those whom it denied x until now lose it in their own entry.
        entries = {key: value & ~_X if key[0] in _MASKED else value for key, value in entries.items()}
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _X
    entries[_MASK, _NOBODY] = (entries[_GROUP_OBJ, _NOBODY] if mask is None else mask) | _X
    packed = (struct.pack("<HHI", tag, permissions, id_) for (tag, id_), permissions in sorted(entries.items()))
    os.setxattr(folder, _ATTRIBUTE, _VERSION + b"".join(packed))


def _read(folder: Path) -> Entries:
    try:
        value = os.getxattr(folder, _ATTRIBUTE)
    except OSError as error:
        if error.errno not in {errno.ENODATA, errno.ENOTSUP}:
            raise
        mode = folder.stat().st_mode
        return {(_USER_OBJ, _NOBODY): mode >> 6 & 7, (_GROUP_OBJ, _NOBODY): mode >> 3 & 7, (_OTHER, _NOBODY): mode & 7}
    return {(tag, id_): permissions for tag, permissions, id_ in struct.iter_unpack("<HHI", value[len(_VERSION) :])}
