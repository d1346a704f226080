"""A folder whose file system stops answering, as a network's does when its server is gone.

A library that is loaded before the C library delays each stat and each open of a file there.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.support.programs import require_tool

_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void wait_for(const char *path) {
    const char *folder = getenv("HUNG_FOLDER"), *flag = getenv("HUNG_FLAG");
    if (!path || !folder || !flag || strncmp(path, folder, strlen(folder))) return;
    while (syscall(SYS_access, flag, F_OK) == 0) usleep(50000);
}
#define REAL(name) static __typeof__(name) *real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) {                                  \\
    va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }
#define OPEN(name) int name(const char *path, int flags, ...) {                                     \\
    MODE REAL(name); wait_for(path); return real(path, flags, mode); }
#define OPENAT(name) int name(int at, const char *path, int flags, ...) {                           \\
    MODE REAL(name); wait_for(path); return real(at, path, flags, mode); }
#define FOPEN(name) FILE *name(const char *path, const char *mode) {                                \\
    REAL(name); wait_for(path); return real(path, mode); }
#define STAT(name, type) int name(const char *path, type *found) {                                  \\
    REAL(name); wait_for(path); return real(path, found); }
#define STATAT(name, type) int name(int at, const char *path, type *found, int flags) {             \\
    REAL(name); wait_for(path); return real(at, path, found, flags); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64) FOPEN(fopen) FOPEN(fopen64)
STAT(stat, struct stat) STAT(lstat, struct stat) STAT(stat64, struct stat64) STAT(lstat64, struct stat64)
STATAT(fstatat, struct stat) STATAT(fstatat64, struct stat64)
"""


class HungMount:
    """A folder for a test's files; what runs with :attr:`env` waits for them while it hangs."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "mount"
        self.folder.mkdir()
        self._flag = directory / "hung"
        library = directory / "hung.so"
        compiler = require_tool("cc", "gcc")
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(command, input=_SOURCE, text=True, check=True, timeout=60)
        self.env = {
            "LD_PRELOAD": str(library),
            "HUNG_FOLDER": str(self.folder),
            "HUNG_FLAG": str(self._flag),
        }

    def hang(self) -> None:
        """From now on, it does not answer."""
        self._flag.touch()

    def answer(self) -> None:
        """It does again."""
        self._flag.unlink()
