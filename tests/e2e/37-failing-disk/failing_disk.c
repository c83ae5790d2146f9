// A disk that is slow, or refuses, as the file named by FAILING_DISK says at the moment: a line a call with the
// percentage that fail, the error's number, and how many microseconds it takes longer. Loaded before the program
// (LD_PRELOAD); only what lies in a folder that ends in ".journal" is meant.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { FDATASYNC, FSYNC, PWRITE, PWRITEV, RENAME, FTRUNCATE, OPEN, CALLS };
static const char *const names[CALLS] = {"fdatasync", "fsync", "pwrite", "pwritev", "rename", "ftruncate", "open"};

struct rule {
  int percent, error, delay_us;
};

static struct rule rule_of(int call) {
  struct rule one, none = {0, 0, 0};
  char name[32];
  FILE *file = fopen(getenv("FAILING_DISK"), "r");
  if (!file) return none;
  while (fscanf(file, "%31s %d %d %d", name, &one.percent, &one.error, &one.delay_us) == 4)
    if (strcmp(name, names[call]) == 0) return fclose(file), one;
  fclose(file);
  return none;
}

static int fails(int call) {
  static __thread unsigned seed;
  struct rule rule = rule_of(call);
  if (!seed) seed = (unsigned)time(NULL) ^ (unsigned)(unsigned long)&seed;
  if (rule.delay_us > 0) usleep((useconds_t)rule.delay_us);
  if ((int)(rand_r(&seed) % 100) >= rule.percent) return 0;
  errno = rule.error;
  return 1;
}

static int is_meant(int file) {
  char link[64], path[1024];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size <= 0) return 0;
  path[size] = 0;
  return strstr(path, ".journal/") != NULL;
}

#define REAL(result, name, ...)                      \
  static result (*real)(__VA_ARGS__);                \
  if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

int fdatasync(int file) {
  REAL(int, fdatasync, int);
  return is_meant(file) && fails(FDATASYNC) ? -1 : real(file);
}

int fsync(int file) {
  REAL(int, fsync, int);
  return is_meant(file) && fails(FSYNC) ? -1 : real(file);
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t at) {
  REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
  return is_meant(file) && fails(PWRITE) ? -1 : real(file, bytes, size, at);
}
ssize_t pwrite64(int file, const void *bytes, size_t size, off_t at) { return pwrite(file, bytes, size, at); }

ssize_t pwritev(int file, const struct iovec *pieces, int count, off_t at) {
  REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
  return is_meant(file) && fails(PWRITEV) ? -1 : real(file, pieces, count, at);
}
ssize_t pwritev64(int file, const struct iovec *pieces, int count, off_t at) { return pwritev(file, pieces, count, at); }

int ftruncate(int file, off_t size) {
  REAL(int, ftruncate, int, off_t);
  return is_meant(file) && fails(FTRUNCATE) ? -1 : real(file, size);
}
int ftruncate64(int file, off_t size) { return ftruncate(file, size); }

int rename(const char *from, const char *to) {
  REAL(int, rename, const char *, const char *);
  return strstr(to, ".journal/") && fails(RENAME) ? -1 : real(from, to);
}

int open(const char *path, int flags, ...) {
  REAL(int, open, const char *, int, mode_t);
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return strstr(path, ".journal/") && strstr(path, ".lmdb") && fails(OPEN) ? -1 : real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open(path, flags, mode);
}
