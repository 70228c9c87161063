/*
 * Preloaded into a program (LD_PRELOAD), this makes its wall clock stand at an instant that another process sets: the
 * microseconds since 1970, a native 64-bit integer at the start of the file that SHADOWCAT_TEST_CLOCK names. The monotonic
 * clock, by which a server wakes up to work in the background, goes on.
 *
 * libfaketime, which does this and more, cannot run under jemalloc, the memory allocator of redis-server
 * (https://github.com/wolfcw/libfaketime/issues/130). Whatever is here must therefore neither allocate memory nor look up
 * symbols: jemalloc asks for the time while it is being initialized.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "on 32-bit systems the clocks have other system calls");

enum { MICROSECONDS = 1000000 };

static const int64_t *now;

/* A program that went on by the real clock would be tested as if it were not, so there is no going on without the file. */
__attribute__((constructor)) static void map_the_clock(void) {
  const char *name = getenv("SHADOWCAT_TEST_CLOCK");
  int file = open(name ? name : "", O_RDONLY | O_CLOEXEC);
  void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *now, PROT_READ, MAP_SHARED, file, 0);
  if (mapped == MAP_FAILED) {
    perror("map the file that SHADOWCAT_TEST_CLOCK names");
    _exit(1);
  }
  close(file);
  now = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  if (now == NULL || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) {
    return (int)syscall(SYS_clock_gettime, clock, at);
  }
  int64_t instant = __atomic_load_n(now, __ATOMIC_ACQUIRE);
  at->tv_sec = instant / MICROSECONDS;
  at->tv_nsec = instant % MICROSECONDS * 1000;
  return 0;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  (void)zone; /* obsolete, and NULL in every program of today */
  struct timespec instant;
  int result = clock_gettime(CLOCK_REALTIME, &instant);
  at->tv_sec = instant.tv_sec;
  at->tv_usec = instant.tv_nsec / 1000;
  return result;
}

time_t time(time_t *at) {
  struct timespec instant;
  clock_gettime(CLOCK_REALTIME, &instant);
  if (at != NULL) {
    *at = instant.tv_sec;
  }
  return instant.tv_sec;
}
