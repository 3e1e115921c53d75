/* Racers on files, shared memory and hugetlb: truncate, remap, migrate, watch, compact. */
#define _GNU_SOURCE
#include "hold.h"
#include "race.h"
#include "uffd.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_PAGES = 768, MOVED_PAGES = 32 };

/* Reading behind the end of a truncated file is a signal: a child takes it. */
static void work_on_file(const char *path)
{
	if (fork())
		wait(NULL);
	else {
		int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
		if (fd < 0)
			_exit(0);
		if (!pick(3) && ftruncate(fd, pick(FILE_PAGES) * PAGE))
			_exit(0);
		if (ftruncate(fd, FILE_PAGES * PAGE))
			_exit(0);
		size_t length = (1 + pick(FILE_PAGES)) * PAGE;
		char *shared = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		char *private = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		if (shared == MAP_FAILED || private == MAP_FAILED)
			_exit(0);
		touch(shared + pick(length / PAGE) * PAGE, PAGE, 1);
		look(shared, length);
		touch(private, length / 4 + 1, 2);
		if (!pick(3))
			try_advise(shared, length, 21);
		if (!pick(4))
			fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pick(64) * PAGE, 64 * PAGE);
		_exit(0);
	}
}

RACER(on_disk, "race-file")
{
	work_on_file("/mnt/disk/race");
}

RACER(in_tmpfs, "race-shmem")
{
	work_on_file(pick(2) ? "/mnt/tmp/race" : "/mnt/huge/race");
}

RACER(hugetlb, "race-hugetlb")
{
	char text[16];
	snprintf(text, sizeof(text), "%lu", 6 + pick(8));
	if (!pick(4))
		write_text("/proc/sys/vm/nr_hugepages", text);
	if (fork()) {
		wait(NULL);
		return;
	}
	char *area = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE,
			  MAP_ANONYMOUS | MAP_HUGETLB | (pick(2) ? MAP_PRIVATE : MAP_SHARED), -1, 0);
	if (area == MAP_FAILED)
		_exit(0);
	area[0] = 1;
	if (!fork()) {
		area[0] = 2;
		_exit(0);
	}
	area[HUGE_PAGE] = 3;
	wait(NULL);
	_exit(0);
}

RACER(migrating, "race-migrate")
{
	static char *area;
	void *pages[MOVED_PAGES];
	int nodes[MOVED_PAGES], status[MOVED_PAGES];
	if (!area) {
		area = map_at_huge_boundary(HUGE_PAGE + MOVED_PAGES * PAGE, 0);
		try_advise(area, HUGE_PAGE, MADV_HUGEPAGE);
		touch(area, HUGE_PAGE + MOVED_PAGES * PAGE, 1);
	}
	for (int i = 0; i < MOVED_PAGES; i++) {
		pages[i] = area + (i == 0 ? 0 : HUGE_PAGE + i * PAGE);
		nodes[i] = pick(2);
	}
	enum { MOVE_ALL = 4, MOVE = 2 };
	syscall(SYS_move_pages, 0, MOVED_PAGES, pages, nodes, status, pick(2) ? MOVE : MOVE_ALL);
	touch(area, HUGE_PAGE + MOVED_PAGES * PAGE, 1);
	if (!pick(10) && !fork()) {
		nap(pick(30));
		_exit(0);
	}
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

RACER(compacting, "race-compact")
{
	nap(pick(100));
	write_text("/proc/sys/vm/compact_memory", "1");
	if (!pick(5))
		write_text("/proc/sys/vm/drop_caches", "3");
}

static void *write_everywhere(void *area)
{
	touch(area, 64 * PAGE, 2);
	return NULL;
}

/* A thread writes while its neighbour protects and releases. */
RACER(watching, "race-uffd")
{
	if (fork()) {
		wait(NULL);
		return;
	}
	int fd = open_uffd(0, "userfaultfd");
	char *area = map_anon(64 * PAGE);
	pthread_t writer;
	touch(area, 48 * PAGE, 1);
	register_range(fd, area, 64 * PAGE, UFFDIO_REGISTER_MODE_WP);
	for (int i = 0; i < 10; i++) {
		write_protect(fd, area, 64 * PAGE);
		if (pthread_create(&writer, NULL, write_everywhere, area))
			_exit(0);
		if (!pick(4))
			try_advise(area + 8 * PAGE, 16 * PAGE, 21);
		struct uffdio_writeprotect release = { { (uintptr_t)area, 64 * PAGE }, 0 };
		ioctl(fd, UFFDIO_WRITEPROTECT, &release);
		pthread_join(writer, NULL);
	}
	_exit(0);
}

RACER(threaded, "race-threads")
{
	if (fork()) {
		wait(NULL);
		return;
	}
	char *area = map_anon(64 * PAGE);
	pthread_t writers[3];
	for (int i = 0; i < 3; i++)
		if (pthread_create(&writers[i], NULL, write_everywhere, area))
			_exit(0);
	try_advise(area, 32 * PAGE, MADV_DONTNEED);
	munmap(mmap(NULL, 16 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 16 * PAGE);
	for (int i = 0; i < 3; i++)
		pthread_join(writers[i], NULL);
	_exit(0);
}
