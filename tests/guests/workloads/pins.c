/* Pages with references beyond their mappings: io_uring buffers and pages in a pipe. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int set_up_ring(struct io_uring_params *parameters)
{
	int fd = syscall(SYS_io_uring_setup, 4, parameters);
	if (fd < 0)
		skip("no io_uring: errno %d", errno);
	return fd;
}

static void copy_all(void *area)
{
	touch(area, 4 * PAGE, 2);
}

/* Fork after the pin: the child gets copies at once, the parent keeps its pages. */
HOLD(registered, "pin-io-uring", PHASE_STATE)
{
	struct io_uring_params parameters;
	memset(&parameters, 0, sizeof(parameters));
	int fd = set_up_ring(&parameters);
	char *area = map_anon(8 * PAGE), *thp = map_thp(HUGE_PAGE);
	touch(area, 8 * PAGE, 1);
	struct iovec buffers[] = { { area, 4 * PAGE }, { thp + 16 * PAGE, 8 * PAGE } };
	if (syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, buffers, 2))
		fail("IORING_REGISTER_BUFFERS");
	spawn("pin-child", copy_all, area);
}

HOLD(in_a_pipe, "pin-vmsplice", PHASE_STATE)
{
	int ends[2];
	char *area = map_anon(8 * PAGE), *thp = map_thp(HUGE_PAGE);
	touch(area, 8 * PAGE, 1);
	struct iovec parts[] = { { area, 4 * PAGE }, { thp, 2 * PAGE } };
	if (pipe(ends))
		fail("pipe");
	if (vmsplice(ends[1], parts, 2, 0) < 0)
		fail("vmsplice");
	/* One page stays only in the pipe. */
	munmap(area + PAGE, PAGE);
	spawn("splice-child", copy_all, area + 4 * PAGE);
}

/* A kernel thread that uses this mm, asleep after its idle time; the rings are mapped kernel pages. */
HOLD(polled, "io-uring-sqpoll", PHASE_STATE)
{
	struct io_uring_params parameters;
	memset(&parameters, 0, sizeof(parameters));
	parameters.flags = IORING_SETUP_SQPOLL;
	parameters.sq_thread_idle = 10;
	int fd = set_up_ring(&parameters);
	void *ring = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQ_RING);
	void *entries = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
	if (ring == MAP_FAILED || entries == MAP_FAILED)
		fail("mmap of an io_uring ring");
}
