/* Counts, records and fails the calls by which a process changes what is below one folder.

   Preloaded (LD_PRELOAD) before the C library, so that Python, SQLite and every other library in the process
   call these functions.  file_calls_begin switches it on.  A call is recorded as a line of its name, its path
   and, of a rename, the new path, separated by tabs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PASS, FAIL, FAIL_FROM_HERE, SHORT, KILL };

static char root[PATH_MAX];
static size_t root_length; /* 0: switched off */
static int record = -1, action, error_number;
static long count, fault_at;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

void file_calls_begin(const char *folder, int record_to, long at, int what, int number) {
    snprintf(root, sizeof root, "%s", folder);
    record = record_to, fault_at = at, action = what, error_number = number, count = 0;
    root_length = strlen(root);
}

long file_calls_count(void) { return count; }

static int below_root(const char *path) {
    return root_length && !strncmp(path, root, root_length) &&
           (path[root_length] == '/' || path[root_length] == 0);
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0;
}

static void absolute(int folder, const char *name, char *path) {
    char base[PATH_MAX] = "";
    if (name[0] != '/' && !(folder == AT_FDCWD ? getcwd(base, sizeof base) != NULL : path_of(folder, base)))
        base[0] = 0;
    snprintf(path, PATH_MAX, name[0] == '/' ? "%s%s" : "%s/%s", name[0] == '/' ? "" : base, name);
}

/* Count a call; returns what happens to it. */
static int begins(const char *call, const char *path, const char *other) {
    long number = count++;
    if (record >= 0)
        dprintf(record, "%s\t%s\t%s\n", call, path, other);
    if (action == PASS || number < fault_at || (number > fault_at && action != FAIL_FROM_HERE))
        return PASS;
    if (action == KILL)
        kill(getpid(), SIGKILL);
    if (action == FAIL || action == FAIL_FROM_HERE)
        errno = error_number;
    return action;
}

static int failed(int verdict) { return verdict == FAIL || verdict == FAIL_FROM_HERE; }

static int on_path(const char *call, int folder, const char *name) {
    char path[PATH_MAX];
    if (!root_length)
        return PASS;
    absolute(folder, name, path);
    return below_root(path) ? begins(call, path, "") : PASS;
}

static int on_paths(const char *call, int folder, const char *name, int other_folder, const char *other) {
    char path[PATH_MAX], second[PATH_MAX];
    if (!root_length)
        return PASS;
    absolute(folder, name, path);
    absolute(other_folder, other, second);
    return below_root(path) || below_root(second) ? begins(call, path, second) : PASS;
}

static int on_file(const char *call, int descriptor) {
    char path[PATH_MAX];
    return root_length && path_of(descriptor, path) && below_root(path) ? begins(call, path, "") : PASS;
}

static int on_open(int folder, const char *name, int flags) {
    char path[PATH_MAX];
    struct stat status;
    if (!root_length)
        return PASS;
    absolute(folder, name, path);
    if (!below_root(path))
        return PASS;
    int exists = !lstat(path, &status);
    return begins(!exists && (flags & O_CREAT) ? "create" : exists && (flags & O_TRUNC) ? "truncate" : "open",
                  path, "");
}

#define OPEN(name)                                                                                           \
    int name(const char *path, int flags, ...) {                                                             \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                              \
        va_end(rest);                                                                                        \
        return failed(on_open(AT_FDCWD, path, flags)) ? -1 : NEXT(name)(path, flags, mode);                  \
    }
#define OPENAT(name)                                                                                         \
    int name(int folder, const char *path, int flags, ...) {                                                 \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                              \
        va_end(rest);                                                                                        \
        return failed(on_open(folder, path, flags)) ? -1 : NEXT(name)(folder, path, flags, mode);            \
    }
#define FOPEN(name)                                                                                          \
    FILE *name(const char *path, const char *mode) {                                                         \
        int flags = mode[0] == 'r' ? 0 : mode[0] == 'w' ? O_CREAT | O_TRUNC : O_CREAT;                       \
        return failed(on_open(AT_FDCWD, path, flags)) ? NULL : NEXT(name)(path, mode);                       \
    }
#define PWRITE(name, offset_type)                                                                            \
    ssize_t name(int descriptor, const void *data, size_t size, offset_type offset) {                        \
        int verdict = on_file("write", descriptor);                                                          \
        return failed(verdict) ? -1                                                                          \
                               : NEXT(name)(descriptor, data, verdict == SHORT ? (size + 1) / 2 : size, offset); \
    }
#define PWRITEV(name, offset_type)                                                                           \
    ssize_t name(int descriptor, const struct iovec *parts, int number, offset_type offset) {                \
        int verdict = on_file("write", descriptor);                                                          \
        return failed(verdict) ? -1                                                                          \
                               : NEXT(name)(descriptor, parts, verdict == SHORT ? (number + 1) / 2 : number, offset); \
    }
#define SENDFILE(name, offset_type)                                                                          \
    ssize_t name(int to, int from, offset_type *offset, size_t size) {                                       \
        int verdict = on_file("write", to);                                                                  \
        return failed(verdict) ? -1 : NEXT(name)(to, from, offset, verdict == SHORT ? (size + 1) / 2 : size); \
    }
#define ON_FILE(call, type, name, parameters, ...)                                                           \
    type name parameters { return failed(on_file(call, descriptor)) ? -1 : NEXT(name)(__VA_ARGS__); }
#define ALLOCATE(name, offset_type)                                                                          \
    int name(int descriptor, offset_type start, offset_type length) {                                        \
        return failed(on_file("write", descriptor)) ? error_number : NEXT(name)(descriptor, start, length);  \
    }
#define ON_PATH(call, name, folder, parameters, ...)                                                         \
    int name parameters { return failed(on_path(call, folder, path)) ? -1 : NEXT(name)(__VA_ARGS__); }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int descriptor, const void *data, size_t size) {
    int verdict = on_file("write", descriptor);
    return failed(verdict) ? -1 : NEXT(write)(descriptor, data, verdict == SHORT ? (size + 1) / 2 : size);
}
ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    int verdict = on_file("write", descriptor);
    return failed(verdict) ? -1 : NEXT(writev)(descriptor, parts, verdict == SHORT ? (number + 1) / 2 : number);
}
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)
ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *offset, size_t size, unsigned flags) {
    int verdict = on_file("write", to);
    if (failed(verdict))
        return -1;
    return NEXT(copy_file_range)(from, start, to, offset, verdict == SHORT ? (size + 1) / 2 : size, flags);
}
ON_FILE("write", int, ftruncate, (int descriptor, off_t size), descriptor, size)
ON_FILE("write", int, ftruncate64, (int descriptor, off64_t size), descriptor, size)
ON_FILE("write", int, fallocate, (int descriptor, int mode, off_t start, off_t length), descriptor, mode, start, length)
ON_FILE("write", int, fallocate64, (int descriptor, int mode, off64_t start, off64_t length), descriptor, mode, start,
        length)
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)
ON_FILE("sync", int, fsync, (int descriptor), descriptor)
ON_FILE("sync", int, fdatasync, (int descriptor), descriptor)
ON_FILE("chmod", int, fchmod, (int descriptor, mode_t mode), descriptor, mode)

ON_PATH("mkdir", mkdir, AT_FDCWD, (const char *path, mode_t mode), path, mode)
ON_PATH("mkdir", mkdirat, folder, (int folder, const char *path, mode_t mode), folder, path, mode)
ON_PATH("remove", unlink, AT_FDCWD, (const char *path), path)
ON_PATH("remove", unlinkat, folder, (int folder, const char *path, int flags), folder, path, flags)
ON_PATH("remove", rmdir, AT_FDCWD, (const char *path), path)
ON_PATH("chmod", chmod, AT_FDCWD, (const char *path, mode_t mode), path, mode)
ON_PATH("chmod", fchmodat, folder, (int folder, const char *path, mode_t mode, int flags), folder, path, mode, flags)

int rename(const char *from, const char *to) {
    return failed(on_paths("rename", AT_FDCWD, from, AT_FDCWD, to)) ? -1 : NEXT(rename)(from, to);
}
int renameat(int folder, const char *from, int other, const char *to) {
    return failed(on_paths("rename", folder, from, other, to)) ? -1 : NEXT(renameat)(folder, from, other, to);
}
int renameat2(int folder, const char *from, int other, const char *to, unsigned flags) {
    const char *call = flags & RENAME_EXCHANGE ? "exchange" : "rename";
    return failed(on_paths(call, folder, from, other, to)) ? -1 : NEXT(renameat2)(folder, from, other, to, flags);
}
int link(const char *from, const char *to) {
    return failed(on_paths("link", AT_FDCWD, from, AT_FDCWD, to)) ? -1 : NEXT(link)(from, to);
}
int symlink(const char *to, const char *path) {
    return failed(on_path("link", AT_FDCWD, path)) ? -1 : NEXT(symlink)(to, path);
}
