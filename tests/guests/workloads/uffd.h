/* userfaultfd by raw system call, with the requests that newer kernels added. */
#ifndef UFFD_H
#define UFFD_H

#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdint.h>

enum {
	FEATURE_WP_UNPOPULATED = 1 << 13,
	FEATURE_POISON = 1 << 14,
	FEATURE_MOVE = 1 << 16,
	FEATURE_RWP = 1 << 17,
	MODE_RWP = 1 << 3,
};

/* Range, mode, and the answer word of UFFDIO_POISON. */
struct poison_request {
	struct uffdio_range range;
	uint64_t mode;
	int64_t updated;
};

struct move_request {
	uint64_t target, source, length, mode;
	int64_t moved;
};

#define REQUEST_MOVE _IOWR(UFFDIO, 0x05, struct move_request)
#define REQUEST_POISON _IOWR(UFFDIO, 0x08, struct poison_request)
#define REQUEST_RWPROTECT _IOWR(UFFDIO, 0x09, struct uffdio_writeprotect)

/* Open one that offers features; the workload is skipped when the kernel does not. */
int open_uffd(uint64_t features, const char *what);
void register_range(int fd, void *start, size_t length, uint64_t mode);
void write_protect(int fd, void *start, size_t length);

#endif
