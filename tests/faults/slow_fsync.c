/* Loaded before libc: every fsync takes AIINFRA_TEST_FSYNC_S seconds more, as on a disk that is slow or far away. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_disk(void) {
    const char *seconds = getenv("AIINFRA_TEST_FSYNC_S");
    if (seconds) usleep((useconds_t)(atof(seconds) * 1e6));
}

int fsync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    wait_for_disk();
    return real(file);
}

int fdatasync(int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    wait_for_disk();
    return real(file);
}
