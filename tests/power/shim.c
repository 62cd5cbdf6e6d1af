/*
 * A file system layer that keeps a record of what a disk is told: loaded into a process with LD_PRELOAD, it passes every
 * call on and appends what it meant to the log that all processes share. Only the database of POWER_SHIM_DB, its -wal,
 * its -journal and the folder they are in are recorded; the -shm is memory, and a power loss takes it.
 *
 * Order: a call and its record happen under one lock between all threads and processes, so the order of the records is that
 * of the calls. A sync is two records. What was written before the first is on disk once the second is there; what is
 * written between them may be either. Nothing is really synced: the disk exists in the log alone, and its sync takes
 * POWER_SHIM_SYNC_US, up to eight times as long now and then, so that anything that is said too early is said early.
 *
 * The format of a record is in log.rs. Whatever this cannot do for certain ends the process with a word on stderr.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CREATED = 1, WRITTEN, LENGTH, REMOVED, SYNC_BEGUN, SYNC_ENDED };
enum { NOT_OURS, DATABASE, WAL, JOURNAL, FOLDER };
enum { FDS_MAX = 65536, PIECES_MAX = 64 };

struct record {
    uint32_t size; /* of the whole record */
    uint8_t what, name;
    uint16_t reserved;
    uint32_t pid;
    uint32_t sync; /* which sync of the process, for the two records of one */
    uint64_t at_us;
    uint64_t inode;
    uint64_t offset;
};

static char database[PATH_MAX], folder[PATH_MAX];
static int log_fd = -1;
static long sync_us = 500;
static unsigned char names[FDS_MAX];
static uint64_t inodes[FDS_MAX];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t n_syncs;
static int ready;

static void fail(const char *what) {
    dprintf(2, "power shim: %s: %s\n", what, strerror(errno));
    _exit(97);
}

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) fail(name);
    return found;
}

/* The function of that name that this one stands before. */
#define REAL(name)                                                                                                         \
    ({                                                                                                                     \
        static __typeof__(&name) found;                                                                                    \
        if (!found) found = (__typeof__(&name))real(#name);                                                                \
        found;                                                                                                             \
    })

static void begin(void) {
    pthread_mutex_lock(&lock);
    while (flock(log_fd, LOCK_EX) != 0)
        if (errno != EINTR) fail("lock the log");
}

static void end(void) {
    int kept = errno;
    flock(log_fd, LOCK_UN);
    pthread_mutex_unlock(&lock);
    errno = kept;
}

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Within begin and end. */
static void tell(int what, int name, uint64_t inode, uint64_t offset, uint32_t sync, const struct iovec *data, int pieces,
                 size_t length) {
    struct record record = {.size = (uint32_t)(sizeof record + length), .what = (uint8_t)what, .name = (uint8_t)name,
                            .pid = (uint32_t)getpid(), .sync = sync, .at_us = now_us(), .inode = inode,
                            .offset = offset};
    struct iovec all[PIECES_MAX + 1] = {{.iov_base = &record, .iov_len = sizeof record}};
    int n = 1;
    for (int i = 0; i < pieces && length > 0; i++) {
        all[n] = data[i];
        if (all[n].iov_len > length) all[n].iov_len = length;
        length -= all[n++].iov_len;
    }
    if (REAL(writev)(log_fd, all, n) != (ssize_t)record.size) fail("write the log");
}

__attribute__((constructor)) static void start(void) {
    const char *db = getenv("POWER_SHIM_DB"), *log = getenv("POWER_SHIM_LOG"), *us = getenv("POWER_SHIM_SYNC_US");
    if (!db || !log) return;
    if (us) sync_us = atol(us);
    snprintf(database, sizeof database, "%s", db);
    snprintf(folder, sizeof folder, "%s", db);
    *strrchr(folder, '/') = 0;
    log_fd = REAL(open)(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (log_fd < 0) fail("open the log");
    ready = 1;
}

static int name_of(const char *path) {
    size_t length = strlen(database);
    if (!ready || !path) return NOT_OURS;
    if (strcmp(path, folder) == 0) return FOLDER;
    if (strncmp(path, database, length) != 0) return NOT_OURS;
    if (path[length] == 0) return DATABASE;
    if (strcmp(path + length, "-wal") == 0) return WAL;
    if (strcmp(path + length, "-journal") == 0) return JOURNAL;
    return NOT_OURS;
}

static int ours(int fd) { return ready && fd >= 0 && fd < FDS_MAX ? names[fd] : NOT_OURS; }

/* ------------------------------------------------------------------------------------------------------ open and close */

static int opened(int dir, const char *path, int flags, mode_t mode) {
    int name = name_of(path);
    if (name == NOT_OURS) return REAL(openat)(dir, path, flags, mode);
    struct stat now;
    begin();
    int is_new = stat(path, &now) != 0;
    int fd = REAL(openat)(dir, path, flags, mode);
    if (fd >= 0) {
        if (fd >= FDS_MAX || fstat(fd, &now) != 0) fail("look at an opened file");
        names[fd] = (unsigned char)name;
        inodes[fd] = now.st_ino;
        if (is_new) tell(CREATED, name, now.st_ino, 0, 0, NULL, 0, 0);
        else if (flags & O_TRUNC) tell(LENGTH, name, now.st_ino, 0, 0, NULL, 0, 0);
    }
    end();
    return fd;
}

#define MODE(flags, mode)                                                                                                  \
    mode_t mode = 0;                                                                                                       \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                               \
        va_list rest;                                                                                                      \
        va_start(rest, flags);                                                                                             \
        mode = va_arg(rest, mode_t);                                                                                       \
        va_end(rest);                                                                                                      \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE(flags, mode) return opened(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE(flags, mode) return opened(dir, path, flags | O_LARGEFILE, mode); }

int close(int fd) {
    if (ours(fd)) names[fd] = NOT_OURS;
    return REAL(close)(fd);
}

/* ------------------------------------------------------------------------------------------------------------- writing */

static ssize_t written(int fd, const struct iovec *data, int pieces, off_t offset) {
    begin();
    int at_cursor = offset < 0;
    if (at_cursor) offset = lseek(fd, 0, SEEK_CUR);
    if (offset < 0 || pieces > PIECES_MAX) fail("write in a way that is not known");
    ssize_t done = at_cursor ? REAL(writev)(fd, data, pieces) : REAL(pwritev)(fd, data, pieces, offset);
    if (done > 0) tell(WRITTEN, names[fd], inodes[fd], (uint64_t)offset, 0, data, pieces, (size_t)done);
    end();
    return done;
}

ssize_t write(int fd, const void *data, size_t n) {
    if (!ours(fd)) return REAL(write)(fd, data, n);
    return written(fd, &(struct iovec){(void *)data, n}, 1, -1);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t offset) {
    if (!ours(fd)) return REAL(pwrite)(fd, data, n, offset);
    return written(fd, &(struct iovec){(void *)data, n}, 1, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t offset) { return pwrite(fd, data, n, offset); }

ssize_t writev(int fd, const struct iovec *data, int pieces) {
    return ours(fd) ? written(fd, data, pieces, -1) : REAL(writev)(fd, data, pieces);
}

ssize_t pwritev(int fd, const struct iovec *data, int pieces, off_t offset) {
    return ours(fd) ? written(fd, data, pieces, offset) : REAL(pwritev)(fd, data, pieces, offset);
}

ssize_t pwritev64(int fd, const struct iovec *data, int pieces, off64_t offset) { return pwritev(fd, data, pieces, offset); }

int ftruncate(int fd, off_t length) {
    if (!ours(fd)) return REAL(ftruncate)(fd, length);
    begin();
    int done = REAL(ftruncate)(fd, length);
    if (done == 0) tell(LENGTH, names[fd], inodes[fd], (uint64_t)length, 0, NULL, 0, 0);
    end();
    return done;
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

/* SQLite does without these two, and without a mapped database, where they are missing. */
int fallocate(int fd, int mode, off_t from, off_t length) {
    if (!ours(fd)) return REAL(fallocate)(fd, mode, from, length);
    errno = EOPNOTSUPP;
    return -1;
}

int posix_fallocate(int fd, off_t from, off_t length) {
    return ours(fd) ? EINVAL : REAL(posix_fallocate)(fd, from, length);
}

/* ---------------------------------------------------------------------------------------------------- names and syncing */

int unlink(const char *path) {
    int name = name_of(path);
    if (name == NOT_OURS) return REAL(unlink)(path);
    struct stat now;
    begin();
    uint64_t inode = stat(path, &now) == 0 ? now.st_ino : 0;
    int done = REAL(unlink)(path);
    if (done == 0) tell(REMOVED, name, inode, 0, 0, NULL, 0, 0);
    end();
    return done;
}

int rename(const char *from, const char *to) {
    if (name_of(from) || name_of(to)) fail("rename in a way that is not known");
    return REAL(rename)(from, to);
}

static int synced(int fd) {
    int name = names[fd];
    uint64_t inode = inodes[fd];
    begin();
    uint32_t sync = ++n_syncs;
    tell(SYNC_BEGUN, name, inode, 0, sync, NULL, 0, 0);
    end();
    usleep((useconds_t)(sync % 8 == 7 ? 8 * sync_us : sync_us));
    begin();
    tell(SYNC_ENDED, name, inode, 0, sync, NULL, 0, 0);
    end();
    return 0;
}

int fsync(int fd) { return ours(fd) ? synced(fd) : REAL(fsync)(fd); }
int fdatasync(int fd) { return ours(fd) ? synced(fd) : REAL(fdatasync)(fd); }
