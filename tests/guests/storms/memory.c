/* Storms on pages: reclaim and swap, KSM, compaction and migration between nodes, memory cgroups, hugetlb, userfaultfd. */
#include "storm.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static char *pool;

static char *own(size_t length)
{
	if (!pool) {
		pool = map_huge_aligned(length);
		if (!pool)
			_exit(1);
		madvise(pool, length / 2, MADV_HUGEPAGE);
		dirty(pool, length, 1);
	}
	return pool;
}

static void fork_and_write(size_t length)
{
	pid_t pid = fork();
	if (!pid) {
		dirty(pool, length, 1 + pick(5));
		_exit(0);
	}
	if (pick(2))
		waitpid(pid, NULL, 0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static void always_huge(void)
{
	write_text("/sys/kernel/mm/transparent_hugepage/enabled", "always");
	write_text("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "1");
	write_text("/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "0");
	write_text("/sys/kernel/mm/transparent_hugepage/khugepaged/alloc_sleep_millisecs", "0");
	write_text("/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled", "always");
}

static void swapping(void)
{
	enum { LENGTH = 24 << 20 };
	char *start = own(LENGTH);
	size_t at = pick(LENGTH / PAGE / 2) * PAGE, length = (1 + pick(1024)) * PAGE;
	madvise(start + at, length, pick(3) ? MADV_PAGEOUT : MADV_COLD);
	if (pick(2))
		dirty(start + at, length, 1 + pick(4));
	else
		look(start, LENGTH, 1);
	if (!pick(8))
		fork_and_write(LENGTH / 4);
	if (!pick(8))
		madvise(start + at, length, pick(2) ? MADV_FREE : MADV_DONTNEED);
}

static void merge_fast(void)
{
	write_text("/sys/kernel/mm/ksm/sleep_millisecs", "0");
	write_text("/sys/kernel/mm/ksm/pages_to_scan", "800");
	write_text("/sys/kernel/mm/ksm/max_page_sharing", "3");
	write_text("/sys/kernel/mm/ksm/use_zero_pages", "1");
	write_text("/sys/kernel/mm/ksm/run", "1");
}

static void merging(void)
{
	enum { LENGTH = 3 << 20 };
	char *start = own(LENGTH);
	madvise(start, LENGTH, MADV_MERGEABLE);
	for (int i = 0; i < 64; i++)
		memset(start + pick(LENGTH / PAGE) * PAGE, (int)pick(3), PAGE);
	fork_and_write(LENGTH / 2);
	if (!pick(4))
		madvise(start + LENGTH / 2, LENGTH / 4, MADV_UNMERGEABLE);
	if (!pick(4))
		mremap(start, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, start + LENGTH / 2);
	if (!pick(6)) {
		munmap(start, LENGTH);
		pool = NULL;
	}
}

static void compacting(void)
{
	enum { LENGTH = 12 << 20, PAGES = 64 };
	char *start = own(LENGTH);
	if (!pick(6))
		write_text("/proc/sys/vm/compact_memory", "1");
	size_t at = pick(LENGTH / PAGE - PAGES) * PAGE;
	void *pages[PAGES];
	int nodes[PAGES], status[PAGES];
	for (int i = 0; i < PAGES; i++)
		pages[i] = start + at + i * PAGE, nodes[i] = (int)pick(2);
	syscall(SYS_move_pages, 0, (unsigned long)PAGES, pages, nodes, status, MPOL_MF_MOVE);
	unsigned long node = 1UL << pick(2);
	syscall(SYS_mbind, start + at, PAGES * PAGE, MPOL_BIND, &node, 3UL, MPOL_MF_MOVE);
	madvise(start + at, PAGES * PAGE, MADV_DONTNEED);
	dirty(start, LENGTH, 1 + pick(3));
	if (!pick(4))
		madvise(start, LENGTH, MADV_COLLAPSE);
	if (!pick(6))
		fork_and_write(LENGTH / 2);
}

static void charging(void)
{
	enum { LENGTH = 8 << 20 };
	char group[64], path[96], number[16];
	snprintf(group, sizeof(group), "/cgroup/storm-%lu", pick(4));
	mkdir(group, 0755);
	snprintf(path, sizeof(path), "%s/cgroup.procs", group);
	snprintf(number, sizeof(number), "%d", getpid());
	write_text(path, number);
	char *start = own(LENGTH);
	dirty(start, LENGTH, 1);
	snprintf(path, sizeof(path), "%s/memory.reclaim", group);
	write_text(path, "4M");
	snprintf(path, sizeof(path), "%s/memory.high", group);
	write_text(path, pick(2) ? "16M" : "max");
	look(start, LENGTH, 2);
	write_text("/cgroup/cgroup.procs", number);
	if (!pick(3))
		rmdir(group);
	if (!pick(3)) {
		munmap(start, LENGTH);
		pool = NULL;
	}
}

static void count_memory(void)
{
	always_huge();
	write_text("/cgroup/cgroup.subtree_control", "+memory");
}

static void reserve(void)
{
	write_text("/proc/sys/vm/nr_hugepages", "12");
	write_text("/proc/sys/vm/nr_overcommit_hugepages", "8");
}

static void using_hugetlb(void)
{
	int fd = open("/mnt/hugetlb/storm", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	int flags = pick(2) ? MAP_SHARED : MAP_PRIVATE;
	char *start = mmap(NULL, 3 * HUGE_PAGE, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (start != MAP_FAILED) {
		/* A pool that is empty ends this process; its successor goes on. */
		start[0]++;
		pid_t pid = fork();
		if (!pid) {
			start[0]++;
			_exit(0);
		}
		start[HUGE_PAGE]++;
		mprotect(start, HUGE_PAGE, PROT_READ);
		madvise(start + HUGE_PAGE, HUGE_PAGE, MADV_DONTNEED);
		waitpid(pid, NULL, 0);
		munmap(start, 3 * HUGE_PAGE);
	}
	if (!pick(4))
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE_PAGE);
	if (!pick(4))
		write_text("/proc/sys/vm/nr_hugepages", pick(2) ? "8" : "14");
	close(fd);
}

struct watched {
	int fd;
	char *start, *source;
};

static void *answer(void *argument)
{
	struct watched *w = argument;
	struct pollfd ready = { w->fd, POLLIN, 0 };
	while (poll(&ready, 1, 200) > 0) {
		struct uffd_msg message;
		if (read(w->fd, &message, sizeof(message)) != sizeof(message))
			continue;
		uint64_t at = message.arg.pagefault.address & ~(PAGE - 1);
		if (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
			struct uffdio_writeprotect open = { { at, PAGE }, 0 };
			ioctl(w->fd, UFFDIO_WRITEPROTECT, &open);
		} else {
			struct uffdio_copy copy = { .dst = at, .src = (uintptr_t)w->source, .len = PAGE };
			ioctl(w->fd, UFFDIO_COPY, &copy);
		}
	}
	return NULL;
}

static void watching(void)
{
	enum { PAGES = 128 };
	struct watched w = { (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK), NULL, NULL };
	struct uffdio_api api = { .api = UFFD_API, .features = 0 };
	if (w.fd < 0 || ioctl(w.fd, UFFDIO_API, &api))
		_exit(1);
	w.start = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	w.source = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register request = { .range = { (uintptr_t)w.start, PAGES * PAGE },
					   .mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP };
	pthread_t thread;
	if (!ioctl(w.fd, UFFDIO_REGISTER, &request) && !pthread_create(&thread, NULL, answer, &w)) {
		for (int round = 0; round < 4; round++) {
			dirty(w.start, PAGES * PAGE, 1 + pick(3));
			struct uffdio_writeprotect protect = { { (uintptr_t)w.start, PAGES / 2 * PAGE },
							       UFFDIO_WRITEPROTECT_MODE_WP };
			ioctl(w.fd, UFFDIO_WRITEPROTECT, &protect);
			dirty(w.start, PAGES * PAGE, 2);
			madvise(w.start + pick(PAGES / 2) * PAGE, 16 * PAGE, pick(2) ? MADV_DONTNEED : MADV_PAGEOUT);
		}
		pthread_join(thread, NULL);
	}
	munmap(w.start, PAGES * PAGE);
	munmap(w.source, PAGE);
	close(w.fd);
}

static void cutting(void)
{
	enum { LENGTH = 4 << 20 };
	const char *path = pick(2) ? "/mnt/huge/storm" : pick(2) ? "/mnt/disk/storm" : "/mnt/tmp/storm";
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, LENGTH))
		_exit(1);
	char *start = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, pick(3) ? MAP_SHARED : MAP_PRIVATE, fd, 0);
	if (start != MAP_FAILED) {
		/* Another process may cut the file off under this one: SIGBUS ends it, its successor goes on. */
		dirty(start, LENGTH, 1 + pick(6));
		fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(pick(512) * PAGE), 64 * PAGE);
		look(start, LENGTH, 3);
		if (!pick(3) && !ftruncate(fd, (off_t)(pick(LENGTH))))
			msync(start, LENGTH, MS_ASYNC);
		if (!pick(8))
			write_text("/proc/sys/vm/drop_caches", "1");
		munmap(start, LENGTH);
	}
	close(fd);
}

const struct storm memory_storms[] = {
	{ "storm-swap", always_huge, swapping, 6 },
	{ "storm-ksm", merge_fast, merging, 4 },
	{ "storm-compact", always_huge, compacting, 4 },
	{ "storm-memcg", count_memory, charging, 4 },
	{ "storm-hugetlb", reserve, using_hugetlb, 3 },
	{ "storm-uffd", NULL, watching, 4 },
	{ "storm-file", always_huge, cutting, 4 },
	{ 0 },
};
