"""Shows the WAL-reset fault of SQLite before 3.51.3, or that it is kept from happening: `wal_reset.py DATABASE FROM TO STEP PAUSE_MS HOLD_MS`.

A second process runs a checkpoint with Python's own SQLite. It is stopped FROM, FROM + STEP, ... instructions after it got
the checkpoint lock; then this process commits, in a transaction that it holds open for HOLD_MS, and lets it go on PAUSE_MS later. Some of these moments lie between the read
of the log's header and its use. The fault has struck when more of the log counts as copied than was ever written.

Prints one JSON object: the version of SQLite, the number of moments tried, the one that hit, the damage it did, and
whether tracing is allowed here.
"""

import ctypes
import json
import os
import signal
import sqlite3
import struct
import sys
import time

TRACEME, CONT, SINGLESTEP, SYSCALL, SETOPTIONS, GET_SYSCALL_INFO = 0, 7, 9, 24, 0x4200, 0x420E
TRACE_SYSGOOD, EXIT_KILL = 1, 0x100000
SYSCALL_STOP = signal.SIGTRAP | 0x80
F_SETLK = 6
# F_WRLCK on one byte, where sqlite's unix VFS keeps WAL_CKPT_LOCK.
CHECKPOINT_LOCK = (1, 121, 1)

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, pid, address=0, data=0):
    if libc.ptrace(request, pid, address, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request}")


def connect(path):
    database = sqlite3.connect(path, isolation_level=None, timeout=30)
    database.execute("PRAGMA wal_autocheckpoint = 0")
    return database


def checkpoint_again_and_again(path):
    """The victim: stops itself before each checkpoint."""
    database = connect(path)
    database.execute("SELECT count(*) FROM tasks").fetchall()
    try:
        ptrace(TRACEME, 0)
    except OSError:
        os._exit(3)
    while True:
        os.kill(os.getpid(), signal.SIGSTOP)
        database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


class Victim:
    def __init__(self, path):
        self.pid = os.fork()
        if self.pid == 0:
            checkpoint_again_and_again(path)
        self.wait()
        ptrace(SETOPTIONS, self.pid, 0, TRACE_SYSGOOD | EXIT_KILL)
        self.memory = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY)
        self.info = ctypes.create_string_buffer(88)

    def wait(self):
        _, status = os.waitpid(self.pid, 0)
        if not os.WIFSTOPPED(status):
            raise PermissionError("the victim ended: tracing is not allowed here")
        return os.WSTOPSIG(status)

    def run_to_the_lock(self):
        """Until it has the checkpoint lock. False: it did a whole checkpoint without."""
        locking = False
        while True:
            ptrace(SYSCALL, self.pid)
            stop = self.wait()
            if stop == signal.SIGSTOP:
                return False
            if stop != SYSCALL_STOP:
                continue
            ptrace(GET_SYSCALL_INFO, self.pid, 88, ctypes.addressof(self.info))
            at_entry = self.info.raw[0] == 1
            if at_entry:
                _, _, command, lock = struct.unpack_from("<4Q", self.info.raw, 24)
                locking = command == F_SETLK and self.lock_at(lock) == CHECKPOINT_LOCK
            elif locking:
                return True

    def lock_at(self, address):
        try:
            return struct.unpack("<h6xqq", os.pread(self.memory, 24, address))
        except (OSError, OverflowError, struct.error):
            return None

    def step(self, instructions):
        for _ in range(instructions):
            ptrace(SINGLESTEP, self.pid)
            self.wait()

    def finish(self):
        ptrace(CONT, self.pid)
        while self.wait() != signal.SIGSTOP:
            ptrace(CONT, self.pid)


class Log:
    """The shared index of the log. Opened once: to close it would drop the locks that SQLite holds on it."""

    def __init__(self, path):
        self.file = os.open(path + "-shm", os.O_RDONLY)

    def frames_and_copied(self):
        index = os.pread(self.file, 100, 0)
        return struct.unpack_from("<I", index, 16)[0], struct.unpack_from("<I", index, 96)[0]

    def wait_until_copied(self, seconds):
        """True once all is copied. Beside a pin nobody may get there, and that is what it is for."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            frames, copied = self.frames_and_copied()
            if frames == copied:
                return True
            time.sleep(0.001)
        return False


def main(path, first, last, step, pause_ms, hold_ms):
    app = connect(path)
    told = {"sqlite": sqlite3.sqlite_version, "traced": True, "tried": 0, "copied": 0, "hit": None}
    insert = "INSERT INTO tasks(kind, payload) VALUES ('nobody', ?)"
    # With the broker to have a part in it, longer than what it leaves alone, and than the 4062 frames of the first block of
    # the index: of the old log's pages only those behind it are still there to mislead.
    size = 20_000_000 if pause_ms else 60_000
    app.execute(insert, (b"x",))
    log = Log(path)
    try:
        victim = Victim(path)
    except PermissionError:
        told["traced"] = False
        print(json.dumps(told))
        return
    for moment in range(first, last, step):
        app.execute(insert, (bytes(size),))
        app.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        told["copied"] += log.wait_until_copied(2 if pause_ms else 0.001)
        if not victim.run_to_the_lock():
            continue
        victim.step(moment)
        app.execute("BEGIN IMMEDIATE")
        time.sleep(hold_ms / 1000)
        app.execute(insert, (b"x",))
        app.execute("COMMIT")
        time.sleep(pause_ms / 1000)
        victim.finish()
        told["tried"] += 1
        frames, copied = log.frames_and_copied()
        if copied > frames:
            told["hit"] = moment
            break
    os.kill(victim.pid, signal.SIGKILL)
    told["damage"] = damage(path, app, insert)
    print(json.dumps(told))


def damage(path, app, insert):
    """What is wrong with the database once the log has outgrown its old length; None when nothing is."""
    try:
        for _ in range(60):
            app.execute(insert, (bytes(3_000),))
            time.sleep(0.01)
        app.close()
        wrong = connect(path).execute("PRAGMA integrity_check(1)").fetchone()[0]
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if wrong == "ok" else wrong


main(sys.argv[1], *map(int, sys.argv[2:7]))
