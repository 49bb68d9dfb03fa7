"""The Linux system calls that confine a process and that Python does not offer: each does one thing or raises OSError.

Sources: landlock(7), seccomp(2), unshare(2), capabilities(7), prctl(2) of the Linux manual pages.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_NEWIPC, _NEWUTS, _NEWUSER, _NEWNET, _NEWNS = 0x08000000, 0x04000000, 0x10000000, 0x40000000, 0x00020000
_MS_NOSUID_NODEV, _MS_REC_PRIVATE, _MS_BIND_REC = 0b110, 0x44000, 0x5000
MOST_FILES = 8192
"""How many files and folders a worker may make."""
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ = (1 << 2) | (1 << 3)  # read a file, list a folder
_WRITE = _READ | (1 << 1) | (1 << 5) | (1 << 8) | (1 << 14)  # write, remove, make regular files, truncate
_FOLDERS = (1 << 4) | (1 << 7) | (1 << 12) | (1 << 13)  # remove and make folders, make links, move between folders
_FILE_RIGHTS = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15)
_FILESYSTEM_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # number of rights a version of Landlock knows

# Refused with EPERM: names of what must not happen in a worker, system call numbers by machine.
# x86_64 from arch/x86/entry/syscalls/syscall_64.tbl, aarch64 from include/uapi/asm-generic/unistd.h.
_DENIED = {
    "x86_64": (
        *(41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 53, 288, 299, 307),  # sockets
        *(57, 58, 59, 322),  # new processes and programs
        *(62, 129, 200, 234, 297),  # signals to others
        *(101, 310, 311, 312),  # other processes' memory
        *(155, 161, 165, 166, 272, 303, 304, 308),  # mounts, namespaces, file handles
        *(135, 159, 163, 164, 167, 168, 169, 170, 171, 172, 173, 179, 227, 305),  # the machine's settings
        *(175, 176, 246, 248, 249, 250, 298, 300, 313, 320, 321, 323),  # modules, keys, tracing, BPF
        *(29, 30, 31, 64, 65, 66, 68, 69, 70, 71, 220, 240, 319),  # shared memory, queues, files in memory
        *(90, 91, 92, 93, 94, 132, 133, 235, 259, 260, 261, 268, 280),  # modes, owners, times, devices
        *(188, 189, 190, 197, 198, 199),  # extended attributes
        *(142, 144, 251, 256, 279, 314),  # scheduling and memory of other processes
        *(154, 254),  # segments; watching what happens to files that may not be read
    ),
    "aarch64": (
        *(198, 199, 200, 201, 202, 203, 206, 207, 210, 211, 212, 242, 243, 269),
        *(221, 281),
        *(129, 130, 131, 138, 240),
        *(117, 270, 271, 272),
        *(39, 40, 41, 51, 97, 264, 265, 268),
        *(60, 89, 92, 112, 142, 161, 162, 170, 171, 224, 225, 266),
        *(104, 105, 106, 217, 218, 219, 241, 262, 273, 280, 282, 294),
        *(180, 186, 187, 188, 189, 190, 191, 192, 193, 194, 195, 196, 279),
        *(33, 52, 53, 54, 55, 88),
        *(5, 6, 7, 14, 15, 16),
        *(30, 118, 119, 238, 239, 274),
        27,
    ),
}
# Refused with EPERM for some values of one argument: system call, which argument, the values.
_COMMANDS = (8, 10, 15)  # fcntl: to whom, and which, signal is sent about a descriptor
_REQUESTS = (0x5412, 0x8901, 0x8902)  # ioctl: typing into a terminal; the same as fcntl's
_DENIED_VALUES = {
    "x86_64": ((72, 1, _COMMANDS), (16, 1, _REQUESTS)),
    "aarch64": ((25, 1, _COMMANDS), (29, 1, _REQUESTS)),
}
# Refused with EPERM: a file without a name (O_TMPFILE), which nobody who looks into the folder could count.
_NAMELESS_FLAG, _NAMELESS = 0x400000, {"x86_64": ((2, 1), (257, 2)), "aarch64": ((56, 2),)}
# Refused with EPERM where nothing bounds the bytes of removed files that are still open: unlink, rename and their like.
_REMOVING = {"x86_64": (82, 87, 263, 264, 316), "aarch64": (35, 38, 276)}
# Refused unless these arguments are 0, one's own process: limits, processors, priority.
_ONLY_OWN = {"x86_64": ((302, (0,)), (203, (0,)), (141, (0, 1))), "aarch64": ((261, (0,)), (122, (0,)), (140, (0, 1)))}
# A clone is a thread with this flag and a process without it; a thread needs memory, which is limited.
_CLONE, _CLONE_THREAD = {"x86_64": 56, "aarch64": 220}, 0x00010000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
# From 424 on numbers are the same on every machine. These are harmless, everything newer reads as "not implemented";
# so does openat2, whose flags lie in memory.
_FIRST_SHARED, _SHARED_ALLOWED = 424, (436, 439, 441, 449)
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def forbid_new_privileges() -> None:
    """Give up set-user-id programs for this process and its children, for ever."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def forbid_dumps() -> None:
    """Keep other processes of the same user from reading this one's memory."""
    _prctl(_PR_SET_DUMPABLE, 0)


def leave_namespaces() -> None:
    """Move to an own user, network, IPC and host name namespace: there is no network interface that is up."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEWUSER | _NEWNET | _NEWIPC | _NEWUTS) != 0:
        raise _last_error("unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")


def bound_folder(folder: Path, most_bytes: int) -> int:
    """Mount an empty file system in memory over ``folder``, for this process alone, and return a descriptor of it.

    All that is written below has ``most_bytes`` together, removed files that are still open included. Whoever holds
    the descriptor reads what is in it, also after this process has ended. To be called after :func:`own_mounts`.

    Raises:
        OSError: this process may not mount.
    """
    _mount(b"tmpfs", folder, f"size={most_bytes},nr_inodes={MOST_FILES},mode=0700".encode())
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def cover_folder(folder: Path, kept: Iterable[Path]) -> None:
    """Put an empty file system over ``folder``, in which only the paths ``kept`` are there, for this process alone.

    Landlock keeps a file from being opened, not from being measured: its size, its times, and that it exists. Under a
    cover it has none. To be called after :func:`own_mounts`.

    Raises:
        OSError: this process may not mount.
    """
    inside = sorted({path for path in kept if folder in path.parents and path.exists()})
    wanted = [path for path in inside if not any(other in path.parents for other in inside)]
    held = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in wanted]
    try:
        _mount(b"tmpfs", folder, b"size=1m,nr_inodes=4096,mode=" + (b"0700" if held else b"0"))
        for path, descriptor in held:
            (path if stat.S_ISDIR(os.fstat(descriptor).st_mode) else path.parent).mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.touch()
            source = f"/proc/self/fd/{descriptor}".encode()
            if _libc.mount(source, os.fsencode(path), None, ctypes.c_ulong(_MS_BIND_REC), None) != 0:
                raise _last_error("mount")
    finally:
        for _, descriptor in held:
            os.close(descriptor)


def own_mounts() -> None:
    """Move to an own mount namespace, whose mounts nobody else sees.

    Raises:
        OSError: this process may not.
    """
    if _libc.unshare(_NEWNS) != 0:
        raise _last_error("unshare")
    if _libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None) != 0:
        raise _last_error("mount")


def drop_capabilities() -> None:
    """Give up every capability."""
    header = struct.pack("=Ii", 0x20080522, 0)  # version 3, this process
    if _libc.capset(header, bytes(24)) != 0:
        raise _last_error("capset")


def landlock_version() -> int:
    """Return which version of Landlock the kernel offers.

    Raises:
        OSError: none.
    """
    return _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)


def confine_files(readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Leave this process only reading below ``readable`` and reading and writing below ``writable`` (Landlock).

    Where the kernel knows them, TCP, abstract sockets and signals to processes outside are closed as well.
    """
    version = landlock_version()
    rights = (1 << _FILESYSTEM_BY_ABI.get(version, 16)) - 1
    attribute = struct.pack("=QQQ", rights, 0b11, 0b11)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _syscall(_CREATE_RULESET, attribute, ctypes.c_size_t(len(attribute)), 0)
    try:
        for allowed, paths in ((_READ, readable), (_WRITE | _FOLDERS, writable)):
            for path in paths:
                _allow_below(ruleset, path, allowed & rights)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def filter_system_calls(*, removing: bool = True) -> None:
    """Refuse sockets, new processes, signals, tracing, mounts, keys, modules and metadata changes (seccomp-BPF).

    Args:
        removing: whether files may be removed and renamed.

    Raises:
        OSError: no seccomp, or a machine whose system call numbers are not listed here.
    """
    machine = platform.machine()
    if machine not in _DENIED:
        raise OSError(errno.ENOSYS, f"no system call numbers are listed for {machine}")
    program = _filter(machine, removing=removing)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    buffer = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    _prctl(_PR_SET_SECCOMP, 2, ctypes.c_char_p(description))


def _filter(machine: str, *, removing: bool) -> bytes:
    """Return the BPF program: check the machine, then one comparison per refused number."""
    refuse, unknown = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    code = [_load(4), _jump(0x15, _AUDIT_ARCH[machine], 1, 0), _return(_KILL), _load(0)]
    if machine == "x86_64":
        code += [_jump(0x35, _X32_BIT, 0, 1), _return(_KILL)]
    code += [_jump(0x35, _FIRST_SHARED, 0, 2 * len(_SHARED_ALLOWED) + 1)]
    for number in _SHARED_ALLOWED:
        code += [_jump(0x15, number, 0, 1), _return(_ALLOW)]
    code += [_return(unknown)]
    code += [_jump(0x15, _CLONE[machine], 0, 4), _load(16)]
    code += [_jump(0x45, _CLONE_THREAD, 0, 1), _return(_ALLOW), _return(refuse)]
    for number in _DENIED[machine] + (() if removing else _REMOVING[machine]):
        code += [_jump(0x15, number, 0, 1), _return(refuse)]
    for number, argument in _NAMELESS[machine]:
        code += [_jump(0x15, number, 0, 4), _load(_argument(argument))]
        code += [_jump(0x45, _NAMELESS_FLAG, 0, 1), _return(refuse), _return(_ALLOW)]
    for number, arguments in _ONLY_OWN[machine]:
        code += [_jump(0x15, number, 0, 3 * len(arguments) + 1)]
        for argument in arguments:
            code += [_load(_argument(argument)), _jump(0x15, 0, 1, 0), _return(refuse)]
        code += [_return(_ALLOW)]
    for number, argument, values in _DENIED_VALUES[machine]:
        code += [_jump(0x15, number, 0, 2 * len(values) + 2), _load(_argument(argument))]
        for value in values:
            code += [_jump(0x15, value, 0, 1), _return(refuse)]
        code += [_return(_ALLOW)]
    return b"".join([*code, _return(_ALLOW)])


def _argument(index: int) -> int:
    """Return where the lower half of an argument lies: the kernel reads these ones as 32 bits."""
    return 16 + 8 * index


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", 0x20, 0, 0, offset)


def _jump(operation: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", operation, if_true, if_false, value)


def _return(value: int) -> bytes:
    return struct.pack("=HBBI", 0x06, 0, 0, value)


def _allow_below(ruleset: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        _syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _mount(kind: bytes, folder: Path, options: bytes) -> None:
    if _libc.mount(kind, os.fsencode(folder), kind, ctypes.c_ulong(_MS_NOSUID_NODEV), options) != 0:
        raise _last_error("mount")


def _prctl(option: int, value: int, argument: object = 0) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), argument, ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
        raise _last_error("prctl")


def _syscall(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _last_error(f"system call {number}")
    return result


def _last_error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")
