"""What is refused before anything runs: what others could change, and file systems whose locks mean nothing.

A path is as safe as every directory and symlink on the way to it: whoever may change one of them decides where it leads. So each
step is looked at, from / on, as sshd does for its keys. Where nobody else can change one, nothing changes between look and use.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from jobrunner.errors import StateError, UnsafeError

_MOST_LINKS = 40  # as Linux itself
_ROOT = 0
_MOUNTS = "/proc/self/mountinfo"
_NETWORK = (  # patterns are texts: `re` compiles them at their first use
    rb"nfs4?|cifs|smb3|smbfs|afs|auristorfs|ceph|lustre|9p|glusterfs|beegfs|pvfs2|coda|davfs"
    rb"|fuse\.(?:sshfs|glusterfs|ceph|ceph-fuse|s3fs|rclone|gcsfuse|goofys|juicefs|davfs2?|smbnetfs|afpfs)"
)
_OWN_STATE = "set JOBRUNNER_STATE to a directory of your own"
_SOME_NETWORK = tuple(b"nfs smb cifs afs auristor ceph lustre 9p fuse. gluster beegfs pvfs coda davfs".split())
"""What the name of one of them has in it: where no mount has, no pattern is compiled."""


# --- directories of the state -------------------------------------------------------------------------------------------------


def make_directory(path: Path) -> None:
    """Make a directory of the state and what is missing above it, for its owner alone; one that is there must be safe.

    Raises StateError where it cannot be made, UnsafeError where others could interfere.
    """
    try:
        if not os.path.isdir(path) and not path.is_symlink():
            for each in (*reversed(path.parents), path):  # mkdir(parents=True) would leave those to the umask
                each.mkdir(mode=0o700, exist_ok=True)
        refuse_unsafe_directory(path)
    except OSError as error:
        raise StateError(f"cannot keep the state of runs in {path}: {error.strerror}; set JOBRUNNER_STATE") from None


def refuse_unsafe_directory(path: Path) -> None:
    """Raise UnsafeError unless only we can write to `path`, and only we or root can put something else in its place."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise UnsafeError(f"{path} is not a directory of its own: remove it or set JOBRUNNER_STATE")
    if found.st_uid != os.geteuid():
        raise UnsafeError(
            f"{path} belongs to another user ({_user(found.st_uid)}): set JOBRUNNER_STATE to a directory of your own"
        )
    if found.st_mode & stat.S_ISVTX:
        raise UnsafeError(
            f"{path} is shared by all: set JOBRUNNER_STATE to a directory of your own, such as {path / 'jobrunner'}"
        )
    if found.st_mode & 0o022:
        raise UnsafeError(f"others may write to {path}: {_command('chmod go-w', path)}")
    for step, above in _steps(str(path.parent)):
        if above.st_uid not in (_ROOT, os.geteuid()) and not _is_unmapped(above.st_uid):
            raise UnsafeError(f"{step} belongs to {_user(above.st_uid)}, who could replace {path}: {_OWN_STATE}")
        if _others_may_write(above):
            raise UnsafeError(
                f"others may write to {step}, and so replace {path}: {_command('chmod go-w', step)}, or {_OWN_STATE}"
            )


# --- files that say what is run -----------------------------------------------------------------------------------------------


def refuse_unsafe_file(path: str | os.PathLike[str], what: str, *, imports: bool = False) -> None:
    """Raise UnsafeError where others could make us run what they want, by writing to a file or putting another in its place.

    As root: the file and every folder above it must belong to root (or to who called sudo), and nobody else may write to them.
    As another user only what everybody may write to is refused: whose files they run is their own decision. Sticky folders are
    fine, except that as root, with `imports` (modules beside the file are imported), its own is not: anybody can add a module.
    A file that is not there is not unsafe. `what` names the file in the message, as in "the job file".
    """
    try:
        *folders, (file, found) = _steps(os.path.abspath(path))
    except OSError:
        return  # whoever reads it says so
    as_root = os.geteuid() == _ROOT
    own = os.path.dirname(file)
    _refuse_file(file, found, what, as_root=as_root)
    for step, above in folders:
        if as_root:
            _refuse_folder_of_root(step, above, f"{what} {file}", modules=imports and step == own)
        elif above.st_mode & stat.S_IWOTH and _others_may_write(above):
            raise UnsafeError(f"everybody may write to {step}, and so replace {what} {file}: {_command('chmod o-w', step)}")


def _refuse_file(file: str, found: os.stat_result, what: str, *, as_root: bool) -> None:
    if as_root and not _is_trusted(found.st_uid):
        owner, cure = _user(found.st_uid), _command("chown root", file)
        raise UnsafeError(f"{what} {file} belongs to {owner}, who could run anything as root: run it as {owner}, or {cure}")
    if as_root and found.st_mode & 0o022:
        raise UnsafeError(f"others may write to {what} {file}, and so run anything as root: {_command('chmod go-w', file)}")
    if found.st_mode & stat.S_IWOTH:
        raise UnsafeError(f"everybody may write to {what} {file}, and so run anything as you: {_command('chmod o-w', file)}")


def _refuse_folder_of_root(step: str, found: os.stat_result, holds: str, *, modules: bool) -> None:
    if not _is_trusted(found.st_uid):
        owner, cure = _user(found.st_uid), _command("chown root", step)
        raise UnsafeError(f"{step} belongs to {owner}, who could replace {holds}: run it as {owner}, or {cure}")
    if modules and found.st_mode & stat.S_ISVTX:
        raise UnsafeError(
            f"others may put Python modules beside {holds}, which root would import: move it to a folder of its own"
        )
    if _others_may_write(found):
        raise UnsafeError(f"others may write to {step}, and so replace {holds}: {_command('chmod go-w', step)}")


def _is_trusted(uid: int) -> bool:
    """Whether who owns a file may decide what root runs: root, and who asked for it by sudo, as git has it."""
    return uid == _ROOT or str(uid) == os.environ.get("SUDO_UID") or _is_unmapped(uid)


# --- the file system ----------------------------------------------------------------------------------------------------------


def refuse_network(path: Path) -> None:
    """Raise StateError where `path` lies on a network file system, unless JOBRUNNER_ALLOW_NETWORK_STATE is set."""
    if os.environ.get("JOBRUNNER_ALLOW_NETWORK_STATE", "0") not in ("", "0"):
        return
    try:
        device = os.stat(path).st_dev  # before the mounts are read: what is mounted on demand is mounted then
        with open(_MOUNTS, "rb") as file:
            mounts = file.read()
    except OSError:
        return  # no Linux
    if not any(word in mounts for word in _SOME_NETWORK):
        return
    kind = file_system(mounts, os.path.realpath(os.fsencode(path)), f"{os.major(device)}:{os.minor(device)}".encode())
    if re.fullmatch(_NETWORK, kind):
        raise StateError(
            f"{path} is on a network file system ({kind.decode()}), whose locks and appends cannot be trusted:"
            " set JOBRUNNER_STATE to a local directory, or JOBRUNNER_ALLOW_NETWORK_STATE=1 if one machine alone uses it"
        )


def file_system(mounts: bytes, path: bytes, device: bytes) -> bytes:
    """The type of the file system that holds `path`, from the text of a mountinfo; empty where it does not say.

    A mount of the very `device` ("major:minor") decides, whatever is mounted over what. Where there is none (on btrfs directories
    have numbers of their own), the longest mount point above the path does, of several the last.
    """
    if match := re.search(rb"^\d+ \d+ " + re.escape(device) + rb" .*? - (\S+) ", mounts, re.MULTILINE):
        return match[1]
    best, longest = b"", -1
    for match in re.finditer(rb"^\d+ \d+ \d+:\d+ \S+ (\S+) .*? - (\S+) ", mounts, re.MULTILINE):
        point = re.sub(rb"\\([0-7]{3})", lambda octal: bytes([int(octal[1], 8) & 0xFF]), match[1])
        if len(point) >= longest and (path + b"/").startswith(point.rstrip(b"/") + b"/"):
            best, longest = match[2], len(point)
    return best


# --- steps of a path, users and groups ----------------------------------------------------------------------------------------


def _steps(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Every directory and symlink on the way to an absolute path, from / on, and what it leads to last. Raises OSError."""
    here, links = "/", 0
    yield here, os.lstat(here)
    pending = path.split("/")[::-1]
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            here = os.path.dirname(here)
            continue
        step = os.path.join(here, part)
        found = os.lstat(step)
        yield step, found
        if not stat.S_ISLNK(found.st_mode):
            here = step
            continue
        if (links := links + 1) > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        target = os.readlink(step)
        here = "/" if target.startswith("/") else here
        pending.extend(target.split("/")[::-1])


def _others_may_write(found: os.stat_result) -> bool:
    """Whether others may move what lies in a directory: not in a sticky one, such as /tmp. A symlink's mode means nothing."""
    if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
        return False
    return bool(found.st_mode & stat.S_IWOTH) or (bool(found.st_mode & stat.S_IWGRP) and not _is_own_group(found.st_gid))


def _is_own_group(gid: int) -> bool:
    """Many systems give each user, root left out, a group of the same name with nobody else in it, and the umask 002."""
    import grp
    import pwd

    if os.geteuid() == _ROOT:
        return False
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}


def _is_unmapped(uid: int) -> bool:
    """In a container with few users of its own, the root outside looks like nobody. It is the outside that judges it."""
    try:
        with open("/proc/sys/kernel/overflowuid", "rb") as overflow, open("/proc/self/uid_map", "rb") as users:
            return uid == int(overflow.read()) and users.read().split() != [b"0", b"0", b"4294967295"]
    except (OSError, ValueError):
        return False


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _command(command: str, path: str | Path) -> str:
    import shlex

    return f"{command} {shlex.quote(str(path))}"
