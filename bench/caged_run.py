"""Runs one command in a fresh memory cgroup and accounts for what it did.

Used by compare.py; Linux only, Python standard library only. The command enters the cgroup before
it starts, so its own memory and every page of page cache that it faults in are charged to the same
limit: a program that maps its model cannot borrow memory that a program with its own buffers may
not use. Supports the memory controller of cgroup v1 and v2.
"""
import errno
import os
import signal
import subprocess
import tempfile
import time

GIB = 1 << 30
POLL_SECONDS = 0.1


class CageError(Exception):
    """The machine does not let us measure what was asked; the message says why and what would help."""


def read_text(path, default=""):
    try:
        with open(path, errors="replace") as f:
            return f.read()
    except OSError:
        return default


def write_text(path, value):
    with open(path, "w") as f:
        f.write(str(value))


def key_values(text):
    """{"pgmajfault": 12, "VmRSS": 34} from lines of "key value" or "key: value unit"."""
    out = {}
    for line in text.splitlines():
        words = line.replace(":", " ").split()
        if len(words) >= 2 and words[1].isdigit():
            out[words[0]] = int(words[1])
    return out


# ---- memory cgroup -------------------------------------------------------------------------------


def find_memory_controller():
    """(version, mount point) of the memory controller, or raises CageError."""
    v2 = None
    for line in read_text("/proc/mounts").splitlines():
        _, where, kind, options = line.split()[:4]
        if kind == "cgroup" and "memory" in options.split(","):
            return 1, where
        if kind == "cgroup2":
            v2 = where
    if v2 and "memory" in read_text(os.path.join(v2, "cgroup.controllers")).split():
        return 2, v2
    raise CageError("no memory controller is mounted (looked for cgroup v1 and v2 in /proc/mounts)")


class Cage:
    """A new memory cgroup; limit_bytes 0 means that it only accounts."""

    FILES = {
        1: {"limit": "memory.limit_in_bytes", "peak": "memory.max_usage_in_bytes"},
        2: {"limit": "memory.max", "peak": "memory.peak"},
    }

    def __init__(self, limit_bytes):
        self.version, root = find_memory_controller()
        self.path = os.path.join(root, "flashmoe-bench.%d" % os.getpid())
        try:
            if self.version == 2:
                # Children have memory.* files only once the parent hands the controller down.
                handed = os.path.join(root, "cgroup.subtree_control")
                if "memory" not in read_text(handed).split():
                    write_text(handed, "+memory")
            self.close()
            os.mkdir(self.path)
            if limit_bytes:
                self._write("limit", int(limit_bytes))
                self._forbid_swap(int(limit_bytes))
        except OSError as e:
            hint = "run as root" if os.geteuid() else "inside a container the cgroup tree must be writable"
            raise CageError("cannot make the memory cgroup %s: %s (%s)" % (self.path, e.strerror, hint))

    def _forbid_swap(self, limit_bytes):
        """v1 limits memory and swap together, v2 swap alone; kernels without swap accounting have neither file."""
        name, value = ("memory.memsw.limit_in_bytes", limit_bytes) if self.version == 1 else ("memory.swap.max", 0)
        if os.path.exists(os.path.join(self.path, name)):
            write_text(os.path.join(self.path, name), value)

    def _write(self, what, value):
        write_text(os.path.join(self.path, self.FILES[self.version][what]), value)

    def wrap(self, command):
        """The command line that first moves itself into the group, then becomes the command."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["/bin/sh", "-c", enter, os.path.join(self.path, "cgroup.procs")] + list(command)

    def account(self):
        stat = key_values(read_text(os.path.join(self.path, "memory.stat")))
        events = "memory.oom_control" if self.version == 1 else "memory.events"
        peak = read_text(os.path.join(self.path, self.FILES[self.version]["peak"])).strip()
        again = [stat[key] for key in stat if key.startswith("workingset_refault")]
        return {
            "refaulted_pages": sum(again) if again else None,
            "group_peak_bytes": int(peak) if peak.isdigit() else None,
            "group_major_faults": stat.get("pgmajfault"),
            "oom_kills": key_values(read_text(os.path.join(self.path, events))).get("oom_kill", 0),
        }

    def close(self):
        for _ in range(40):
            try:
                os.rmdir(self.path)
                return
            except OSError as e:
                if e.errno == errno.ENOENT:
                    return
            time.sleep(0.1)


# ---- disk and page cache -------------------------------------------------------------------------


class Disk:
    """The block device that holds a file: its counters and its read-ahead setting."""

    def __init__(self, path):
        number = os.stat(path).st_dev
        self.number = "%d:%d" % (os.major(number), os.minor(number))
        if not os.path.isdir("/sys/dev/block/" + self.number):
            self.number = self._number_from_mount(path)  # file systems with a device number of their own
        self.sys = os.path.realpath("/sys/dev/block/" + self.number) if self.number else None
        self.name = os.path.basename(self.sys) if self.sys else None
        self.queue = None
        for folder in [self.sys, os.path.dirname(self.sys)] if self.sys else []:  # a partition has no queue
            if os.path.isdir(os.path.join(folder, "queue")):
                self.queue = os.path.join(folder, "queue")
                break

    @staticmethod
    def _number_from_mount(path):
        path, best = os.path.realpath(path), ("", None)
        for line in read_text("/proc/self/mountinfo").splitlines():
            left, _, right = line.partition(" - ")
            where, source = left.split()[4], right.split()[1]
            inside = path == where or path.startswith(where.rstrip("/") + "/")
            if inside and len(where) >= len(best[0]) and source.startswith("/dev/"):
                best = (where, source)
        if not best[1]:
            return None
        number = os.stat(best[1]).st_rdev
        return "%d:%d" % (os.major(number), os.minor(number))

    def bytes_read(self):
        """Bytes read from the device since boot; None when the device is unknown."""
        if self.number:
            for line in read_text("/proc/diskstats").splitlines():
                words = line.split()
                if "%s:%s" % (words[0], words[1]) == self.number:
                    return int(words[5]) * 512
        return None

    def setting(self, name):
        return read_text(os.path.join(self.queue, name)).strip() if self.queue else ""


class ReadAhead:
    """Sets a device's read-ahead for the length of a with block, and puts the old value back."""

    def __init__(self, disk, kib):
        self.file = os.path.join(disk.queue, "read_ahead_kb") if disk.queue else None
        self.kib, self.old = kib, None

    def __enter__(self):
        if self.kib is None:
            return self
        if not self.file:
            raise CageError("--readahead-kb: no block device found for the model file")
        self.old = read_text(self.file).strip()
        try:
            write_text(self.file, self.kib)
        except OSError as e:
            raise CageError("--readahead-kb: cannot write %s: %s (run as root)" % (self.file, e.strerror))
        return self

    def __exit__(self, *_):
        if self.old:
            write_text(self.file, self.old)


def drop_page_cache():
    os.sync()
    try:
        write_text("/proc/sys/vm/drop_caches", 3)
    except OSError as e:
        raise CageError("cannot drop the page cache: %s (cold runs need root)" % e.strerror)


def fill_page_cache(path):
    """Reads a file once, so that what fits of it is in memory."""
    buffer = bytearray(8 << 20)
    with open(path, "rb", buffering=0) as f:
        while f.readinto(buffer):
            pass


# ---- one run -------------------------------------------------------------------------------------


def caged_run(command, disk, limit_bytes=0, use_cage=True, timeout=0):
    """Runs a command to its end and returns what it printed and what it cost.

    wall_s, rc, timed_out   exit status; a negative rc is a signal
    peak_rss_bytes          largest resident set, mapped file pages included
    peak_anon_bytes         largest anonymous part of it (sampled, so a short peak can be missed)
    group_peak_bytes        largest charge of the cgroup: memory and page cache together
    refaulted_pages         pages that the kernel had taken back and that were read again
    disk_read_bytes         what the whole device delivered meanwhile, whoever asked
    major_faults            faults that waited for the disk
    user_s, system_s        processor time
    """
    cage = Cage(limit_bytes) if use_cage else None
    result = {"command": list(command), "limit_bytes": int(limit_bytes), "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        started_bytes, started = disk.bytes_read(), time.monotonic()
        child = subprocess.Popen(cage.wrap(command) if cage else list(command), stdin=subprocess.DEVNULL,
                                 stdout=out, stderr=err, start_new_session=True)
        try:
            status, usage, peak_anon, timed_out = _watch(child.pid, started, timeout)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            child.returncode = -signal.SIGKILL
            if cage:
                cage.close()
            raise
        wall, ended_bytes = time.monotonic() - started, disk.bytes_read()
        child.returncode = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
        for name, stream in (("stdout", out), ("stderr", err)):
            stream.seek(0)
            result[name] = stream.read().decode("utf-8", "replace")
    result.update({
        "rc": child.returncode, "timed_out": timed_out, "wall_s": round(wall, 3),
        "peak_rss_bytes": usage.ru_maxrss * 1024, "peak_anon_bytes": peak_anon,
        "major_faults": usage.ru_majflt, "user_s": round(usage.ru_utime, 2), "system_s": round(usage.ru_stime, 2),
        "disk_read_bytes": None if started_bytes is None else ended_bytes - started_bytes,
    })
    if cage:
        result.update(cage.account())
        cage.close()
    return result


def _watch(pid, started, timeout):
    """Waits for the child; returns (wait status, resource usage, peak anonymous bytes, timed out)."""
    peak_anon, timed_out = 0, False
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage, peak_anon, timed_out
        peak_anon = max(peak_anon, key_values(read_text("/proc/%d/status" % pid)).get("RssAnon", 0) * 1024)
        if timeout and not timed_out and time.monotonic() - started > timeout:
            timed_out = True
            os.killpg(pid, signal.SIGKILL)
        time.sleep(POLL_SECONDS)
