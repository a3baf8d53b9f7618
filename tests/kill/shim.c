/* Preloaded before libc: counts the calls that change files below one folder, writes them down, and at the n-th kills the
   process or says that the disk is full. Nothing happens until `shim_arm` is called. It does not see the raw system calls that some
   Rust crates make (`safetensors.save_file` gives its file its name with one). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static long calls, kill_at, full_from, full_calls, told_free = -1;
static int trace = -1, armed;

long shim_calls(void) { return calls; }

void shim_arm(const char *folder, const char *trace_path, long kill, long full, long times, long free_bytes) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    trace = trace_path[0] ? (int)syscall(SYS_openat, AT_FDCWD, trace_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
    calls = 0, kill_at = kill, full_from = full, full_calls = times, told_free = free_bytes, armed = 1;
}

static void of_handle(int handle, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[n > 0 ? n : 0] = 0;
}

static void absolute(int folder, const char *given, char *path) {
    if (given[0] == '/') { snprintf(path, PATH_MAX, "%s", given); return; }
    if (folder == AT_FDCWD) { if (!getcwd(path, PATH_MAX)) path[0] = 0; }
    else of_handle(folder, path);
    size_t n = strlen(path);
    snprintf(path + n, PATH_MAX - n, "/%s", given);
}

static int inside(const char *path) {
    return armed && !strncmp(path, root, root_length) && (path[root_length] == '/' || path[root_length] == 0);
}

/* Counts one call and returns what becomes of it: 0 goes on, 1 the disk is full. Kills are done here, or by `WRITES` for writes. */
static int note(const char *name, int takes_room, long *number) {
    *number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    int full = takes_room && full_from && *number >= full_from && full_calls != 0;
    if (kill_at && *number >= kill_at && strcmp(name, "write")) syscall(SYS_kill, getpid(), SIGKILL);
    if (full && full_calls > 0) full_calls--;
    return full;
}

static long tell(long number, const char *name, const char *path, const char *other, long bytes, int full, long result) {
    char line[2 * PATH_MAX + 100];
    int before = errno;
    int n = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\t%ld\t%d\t%d\n", number, name, path, other, bytes, full, result >= 0);
    if (trace >= 0) syscall(SYS_write, trace, line, n);
    errno = before;
    return result;
}

static long refused(void) {
    errno = ENOSPC;
    return -1;
}

static int dying(void) { return kill_at && calls >= kill_at; }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A write that is killed, and the first one that finds the disk full, bring half of their bytes to the file. */
#define WRITES(handle, bytes, half, all) \
    char path[PATH_MAX]; \
    if (!armed) return all; \
    of_handle(handle, path); \
    if (!inside(path)) return all; \
    long number; \
    int full = note("write", 1, &number); \
    if (dying()) { if ((bytes) > 1) half; syscall(SYS_kill, getpid(), SIGKILL); } \
    static long torn_for = -1; \
    long done; \
    if (!full) done = all; \
    else if (torn_for != full_from && (bytes) > 1) { torn_for = full_from; done = half; } \
    else done = refused(); \
    if (told_free >= 0 && done > 0) told_free -= done < told_free ? done : told_free; \
    return tell(number, "write", path, "", done > 0 ? done : 0, full, done)

ssize_t write(int handle, const void *from, size_t bytes) {
    REAL(write);
    WRITES(handle, bytes, real(handle, from, bytes / 2), real(handle, from, bytes));
}
ssize_t pwrite(int handle, const void *from, size_t bytes, off_t at) {
    REAL(pwrite);
    WRITES(handle, bytes, real(handle, from, bytes / 2, at), real(handle, from, bytes, at));
}
ssize_t pwrite64(int handle, const void *from, size_t bytes, off64_t at) {
    REAL(pwrite64);
    WRITES(handle, bytes, real(handle, from, bytes / 2, at), real(handle, from, bytes, at));
}
ssize_t writev(int handle, const struct iovec *parts, int n) {
    REAL(writev);
    long total = 0;
    for (int i = 0; i < n; i++) total += (long)parts[i].iov_len;
    WRITES(handle, total, write(handle, parts[0].iov_base, parts[0].iov_len / 2), real(handle, parts, n));
}
/* stdio writes past the names above. */
size_t fwrite(const void *from, size_t size, size_t n, FILE *file) {
    REAL(fwrite);
    char path[PATH_MAX];
    if (!armed) return real(from, size, n, file);
    of_handle(fileno(file), path);
    if (!inside(path)) return real(from, size, n, file);
    fflush(file);
    const char *rest = from;
    for (size_t left = size * n; left;) {
        ssize_t done = write(fileno(file), rest, left);
        if (done < 0) return 0;
        rest += done, left -= (size_t)done;
    }
    return n;
}

#define OPENS(name, folder, given, call) \
    char path[PATH_MAX]; \
    struct stat about; \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); } \
    if (armed && (flags & (O_CREAT | O_TRUNC))) { \
        absolute(folder, given, path); \
        int is_new = fstatat(folder, given, &about, 0) != 0; \
        if (inside(path) && (is_new || (flags & O_TRUNC))) { \
            const char *what = is_new ? "create" : "truncate"; \
            long number; \
            int full = note(what, is_new, &number); \
            return (int)tell(number, what, path, "", 0, full, full ? refused() : call); \
        } \
    } \
    return call

int open(const char *given, int flags, ...) { REAL(open); OPENS(open, AT_FDCWD, given, real(given, flags, mode)); }
int open64(const char *given, int flags, ...) { REAL(open64); OPENS(open64, AT_FDCWD, given, real(given, flags, mode)); }
int openat(int at, const char *given, int flags, ...) { REAL(openat); OPENS(openat, at, given, real(at, given, flags, mode)); }
int openat64(int at, const char *given, int flags, ...) { REAL(openat64); OPENS(openat64, at, given, real(at, given, flags, mode)); }

#define CHANGES(name, at, given, at_other, other_given, room, call) \
    char path[PATH_MAX], other[PATH_MAX] = ""; \
    if (!armed) return call; \
    absolute(at, given, path); \
    if (other_given) absolute(at_other, other_given, other); \
    if (!inside(path) && !inside(other)) return call; \
    long number; \
    int full = note(name, room, &number); \
    return (int)tell(number, name, path, other, 0, full, full ? refused() : call)

#define NONE ((const char *)0)
int rename(const char *a, const char *b) { REAL(rename); CHANGES("rename", AT_FDCWD, a, AT_FDCWD, b, 0, real(a, b)); }
int renameat(int f, const char *a, int g, const char *b) { REAL(renameat); CHANGES("rename", f, a, g, b, 0, real(f, a, g, b)); }
int renameat2(int f, const char *a, int g, const char *b, unsigned flags) {
    REAL(renameat2);
    CHANGES("rename", f, a, g, b, 0, real(f, a, g, b, flags));
}
int mkdir(const char *a, mode_t mode) { REAL(mkdir); CHANGES("mkdir", AT_FDCWD, a, 0, NONE, 1, real(a, mode)); }
int mkdirat(int f, const char *a, mode_t mode) { REAL(mkdirat); CHANGES("mkdir", f, a, 0, NONE, 1, real(f, a, mode)); }
static void freed(int at, const char *given) {
    struct stat about;
    if (armed && told_free >= 0 && !fstatat(at, given, &about, AT_SYMLINK_NOFOLLOW) && S_ISREG(about.st_mode)) told_free += about.st_size;
}
int unlink(const char *a) { freed(AT_FDCWD, a); REAL(unlink); CHANGES("unlink", AT_FDCWD, a, 0, NONE, 0, real(a)); }
int unlinkat(int f, const char *a, int flags) {
    REAL(unlinkat);
    freed(f, a);
    CHANGES(flags & AT_REMOVEDIR ? "rmdir" : "unlink", f, a, 0, NONE, 0, real(f, a, flags));
}
int rmdir(const char *a) { REAL(rmdir); CHANGES("rmdir", AT_FDCWD, a, 0, NONE, 0, real(a)); }

#define HANDLED(name, room, call) \
    char path[PATH_MAX]; \
    if (!armed) return call; \
    of_handle(handle, path); \
    if (!inside(path)) return call; \
    long number; \
    int full = note(name, room, &number); \
    return (int)tell(number, name, path, "", 0, full, full ? refused() : call)

int fsync(int handle) { REAL(fsync); HANDLED("fsync", 1, real(handle)); }
int fdatasync(int handle) { REAL(fdatasync); HANDLED("fsync", 1, real(handle)); }
int ftruncate(int handle, off_t size) { REAL(ftruncate); HANDLED("truncate", 0, real(handle, size)); }
int ftruncate64(int handle, off64_t size) { REAL(ftruncate64); HANDLED("truncate", 0, real(handle, size)); }

#define TOLD(about) if (!failed && armed && told_free >= 0) (about)->f_bavail = (unsigned long)told_free / (about)->f_frsize
int statvfs(const char *path, struct statvfs *about) { REAL(statvfs); int failed = real(path, about); TOLD(about); return failed; }
int statvfs64(const char *path, struct statvfs64 *about) { REAL(statvfs64); int failed = real(path, about); TOLD(about); return failed; }
