/*
 * Preloaded into the daemon by tests: its clocks leap, its disk hangs, and what it wants of port 443 it gets at another port, as a file
 * says that the test and it have in common.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct control {
    volatile int64_t leap_s;
    volatile int64_t disk_hangs;
    volatile int64_t https_port;
};

static const struct control *control;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("SHIM_CONTROL");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof(struct control), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && control) now->tv_sec += control->leap_s;
    return result;
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
    struct sockaddr_in other;
    if (control && control->https_port && address->sa_family == AF_INET && length >= sizeof other) {
        memcpy(&other, address, sizeof other);
        if (other.sin_port == htons(443)) other.sin_port = htons((uint16_t)control->https_port);
        address = (const struct sockaddr *)&other;
    }
    return (int)syscall(SYS_connect, socket, address, length);
}

static void hang(void) {
    const struct timespec pause = {0, 10 * 1000 * 1000};
    while (control && control->disk_hangs) nanosleep(&pause, NULL);
}

int fsync(int file) {
    hang();
    return (int)syscall(SYS_fsync, file);
}

int fdatasync(int file) {
    hang();
    return (int)syscall(SYS_fdatasync, file);
}
