#!/usr/bin/env python3
"""Runs slow commands and shows how far they are.

    progress.py NAME [--bytes DIR TOTAL | --packages TOTAL] -- COMMAND...
    progress.py --beside NAME=SHELL_COMMAND...

The first form runs one command. --bytes measures what it writes below DIR,
--packages counts the lines of `go build -v`; a TOTAL of 0 is unknown. The second form
runs several beside each other; they may use the first form themselves.

A terminal gets one live line for each command, anything else plain lines now and
then. What the commands print is passed on to stderr; their status is ours, and the
first that fails ends the others.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

DRAW_SECONDS = 0.2  # between two live lines
PLAIN_SECONDS = 10  # between two plain ones
NESTED = "ASSISTANT_PROGRESS"  # tells a progress.py that another one draws for it
MARK = "\r"  # begins a line of progress from a nested progress.py


def megabytes(n):
    return f"{n / 1e6:.1f}"


def clock(seconds):
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02d}"


class Bytes:
    """Measures what appears below a directory."""

    def __init__(self, directory, total):
        self.directory, self.total = directory, total
        self.start, self.base = time.monotonic(), self.size()

    def size(self):
        size = 0
        for folder, _, names in os.walk(self.directory):
            for name in names:
                try:
                    size += os.lstat(os.path.join(folder, name)).st_size
                except OSError:
                    pass  # gone meanwhile
        return size

    def took(self, line):
        return False

    def summary(self):
        return f"{megabytes(max(0, self.size() - self.base))} MB"

    def text(self):
        done = max(0, self.size() - self.base)
        rate = done / max(time.monotonic() - self.start, 0.1)
        if not self.total:
            return f"{megabytes(done)} MB, {megabytes(rate)} MB/s"
        done = min(done, self.total)
        left = f", {clock((self.total - done) / rate)} left" if rate else ""
        return f"{megabytes(done)} of {megabytes(self.total)} MB, {megabytes(rate)} MB/s{left}"


class Packages:
    """Counts the packages that `go build -v` names."""

    NAME = re.compile(r"^[\w./~-]+$")
    FETCH = re.compile(r"^go: (downloading|extracting) ")

    def __init__(self, total):
        self.total, self.done, self.fetched = total, 0, 0
        self.start = None

    def took(self, line):
        if self.FETCH.match(line):
            self.fetched += 1
            return True
        if self.NAME.match(line):
            self.start = self.start or time.monotonic()
            self.done += 1
            return True
        return False

    def summary(self):
        parts = [f"{self.fetched} modules fetched"] if self.fetched else []
        parts += [f"{self.done} packages built"] if self.done else []
        return ", ".join(parts) or "up to date"

    def text(self):
        if not self.done:
            return f"{self.fetched} modules fetched" if self.fetched else ""
        if not self.total:
            return f"{self.done} packages"
        if self.done >= self.total:
            return "linking"
        rate = self.done / max(time.monotonic() - self.start, 0.1)
        return f"{self.done} of {self.total} packages, {rate:.0f} a second, {clock((self.total - self.done) / rate)} left"


class Latest:
    """Repeats what a nested progress.py last said."""

    def __init__(self):
        self.said = ""

    def summary(self):
        return "done"

    def took(self, line):
        if line.startswith(MARK):
            self.said = line[len(MARK):]
            return True
        self.said = ""  # an ordinary line ends what went on before
        return False

    def text(self):
        return self.said


class Job:
    """A command that runs, and its meter."""

    def __init__(self, name, argv, meter, screen, stdout):
        self.name, self.meter, self.screen = name, meter, screen
        self.start = time.monotonic()
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE if stdout is None else subprocess.STDOUT,
            env={**os.environ, **({NESTED: "1"} if isinstance(meter, Latest) else {})},
            start_new_session=True,  # so that its children can be stopped with it
        )
        self.pipe = self.process.stderr or self.process.stdout
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self):
        for raw in self.pipe:
            line = raw.decode(errors="replace").rstrip("\n")
            if not self.meter.took(line):
                self.screen.print(f"{self.name}: {line}")

    def status(self):
        return f"{self.name}: {self.meter.text() or 'at work'} ({clock(time.monotonic() - self.start)})"

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass


class Screen:
    """Where lines go: live on a terminal, now and then elsewhere."""

    def __init__(self):
        self.lock = threading.Lock()
        self.nested = bool(os.environ.get(NESTED))
        self.live = sys.stderr.isatty() and not self.nested and os.environ.get("TERM") != "dumb"
        self.drawn = 0
        self.next = time.monotonic() + (0 if self.live or self.nested else PLAIN_SECONDS)

    def erase(self):
        if self.drawn:
            sys.stderr.write(f"\x1b[{self.drawn}A\x1b[J")
            self.drawn = 0

    def print(self, line):
        with self.lock:
            self.erase()
            print(line, file=sys.stderr, flush=True)

    def draw(self, jobs):
        now = time.monotonic()
        if not self.live and now < self.next:
            return
        self.next = now + (DRAW_SECONDS if self.nested else PLAIN_SECONDS)
        if self.nested:
            lines = [MARK + job.meter.text() for job in jobs]
        else:
            lines = [job.status() for job in jobs]
        with self.lock:
            self.erase()
            width = shutil.get_terminal_size().columns - 1
            for line in lines:
                print(line[:width] if self.live else line, file=sys.stderr)
            sys.stderr.flush()
            self.drawn = len(lines) if self.live else 0

    def clear(self):
        with self.lock:
            self.erase()
            sys.stderr.flush()


def wait(jobs, screen):
    """Waits for all, or for the first that fails; returns the status."""
    running = list(jobs)
    while running:
        for job in [j for j in running if j.process.poll() is not None]:
            running.remove(job)
            job.reader.join(1)  # a grandchild may hold the pipe for longer
            if job.process.returncode:
                return abs(job.process.returncode)
            screen.print(f"{job.name}: {job.meter.summary()} in {time.monotonic() - job.start:.1f} s")
        if running:
            screen.draw(running)
            time.sleep(DRAW_SECONDS)
    return 0


def start(args, screen):
    if args[:1] == ["--beside"]:
        pairs = [arg.split("=", 1) for arg in args[1:]]
        return [Job(name, ["/bin/sh", "-c", command], Latest(), screen, subprocess.PIPE) for name, command in pairs]
    cut = args.index("--")
    (name, *meter), command = args[:cut], args[cut + 1:]
    if meter[:1] == ["--bytes"]:
        measure = Bytes(meter[1], int(meter[2]))
    else:
        measure = Packages(int(meter[1]))
    return [Job(name, command, measure, screen, None)]


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    screen = Screen()
    jobs = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        jobs = start(sys.argv[1:], screen)
        status = wait(jobs, screen)
    finally:
        for job in jobs:
            if job.process.poll() is None:
                job.stop()
        screen.clear()
    sys.exit(status)


if __name__ == "__main__":
    main()
