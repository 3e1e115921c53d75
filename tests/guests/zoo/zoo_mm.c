/* mms without tasks, and tasks held in the middle of fork, mremap, munmap and madvise by a userfaultfd. */
#define _GNU_SOURCE
#include "hold.h"
#include "uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The mm of a dead process: an open /proc/PID/mem keeps the struct, nothing else. */
HOLD(held_struct, "zoo-mm-count", PHASE_TASK)
{
	int ready[2];
	char path[64], byte;
	if (pipe(ready))
		fail("pipe");
	pid_t pid = fork();
	if (!pid) {
		touch(map_anon(8 * PAGE), 8 * PAGE, 1);
		if (write(ready[1], "r", 1) != 1)
			_exit(1);
		nap(300);
		_exit(0);
	}
	if (read(ready[0], &byte, 1) != 1)
		fail("the child said nothing");
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	open_or_fail(path, O_RDONLY);
	waitpid(pid, NULL, 0);
}

static char *watched_area(uint64_t features, int *fd)
{
	char *area = map_anon(16 * PAGE);
	touch(area, 12 * PAGE, 1);
	*fd = open_uffd(features, "a userfaultfd with events");
	register_range(*fd, area, 16 * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	return area;
}

/* fork tells the userfaultfd and waits for somebody who reads it: the child's mm is whole and on no task. */
HOLD(blocked_fork, "zoo-fork-blocked", PHASE_TASK)
{
	pid_t pid = fork();
	if (!pid) {
		int fd;
		name_process("zoo-forking");
		char *area = watched_area(UFFD_FEATURE_EVENT_FORK, &fd);
		touch(map_thp(HUGE_PAGE), HUGE_PAGE, 1);
		touch(area, PAGE, 1);
		fork();
		_exit(4);
	}
	nap(1200);
	if (waitpid(pid, NULL, WNOHANG) == pid)
		fail("fork did not wait");
}

static void blocked(const char *name, uint64_t feature, void (*body)(char *area))
{
	pid_t pid = fork();
	if (!pid) {
		int fd;
		name_process(name);
		body(watched_area(feature, &fd));
		_exit(4);
	}
	nap(500);
	if (waitpid(pid, NULL, WNOHANG) == pid)
		fail("%s did not wait", name);
}

static void move(char *area)
{
	char *target = map_anon(16 * PAGE);
	mremap(area, 16 * PAGE, 16 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target);
}

static void drop(char *area)
{
	madvise(area, 8 * PAGE, MADV_DONTNEED);
}

static void unmap(char *area)
{
	munmap(area + 4 * PAGE, 4 * PAGE);
}

HOLD(blocked_move, "zoo-mremap-blocked", PHASE_TASK)
{
	blocked("zoo-moving", UFFD_FEATURE_EVENT_REMAP, move);
}

HOLD(blocked_drop, "zoo-dontneed-blocked", PHASE_TASK)
{
	blocked("zoo-dropping", UFFD_FEATURE_EVENT_REMOVE, drop);
}

HOLD(blocked_unmap, "zoo-munmap-blocked", PHASE_TASK)
{
	blocked("zoo-unmapping", UFFD_FEATURE_EVENT_UNMAP, unmap);
}

/* A fault that nobody answers: the task sleeps in it. */
static void *fault_on(void *area)
{
	touch((char *)area + 14 * PAGE, PAGE, 1);
	return NULL;
}

HOLD(blocked_fault, "zoo-fault-blocked", PHASE_TASK)
{
	int fd;
	pthread_t thread;
	char *area = watched_area(0, &fd);
	if (pthread_create(&thread, NULL, fault_on, area))
		fail("pthread_create");
	nap(200);
}

/* A userfaultfd keeps the mm of a process that is gone. */
HOLD(orphaned_watch, "zoo-uffd-orphan", PHASE_TASK)
{
	int ends[2], fd;
	if (pipe(ends))
		fail("pipe");
	pid_t pid = vfork();
	if (!pid)
		_exit(0);
	/* Files are shared, memory is not: the child's userfaultfd stays open here. */
	pid = syscall(SYS_clone, 0x400 | 17, 0, 0, 0, 0);
	if (!pid) {
		watched_area(0, &fd);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}
