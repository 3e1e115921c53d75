/* Racers that only the zoo has: swapoff, execve with much to carry, moves between areas and nodes, collapse, shared
 * tables, folios swapped whole. */
#define _GNU_SOURCE
#include "hold.h"
#include "race.h"
#include "uffd.h"

#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { AREA_PAGES = 64, MANY_ARGUMENTS = 200, ADVICE_COLLAPSE = 25, ADVICE_PAGEOUT = 21, ADVICE_GUARD = 102 };

/* Every entry of the device is read back, process by process, then it is there again. */
RACER(swapping_off, "race-swapoff")
{
	nap(200 + pick(1500));
	if (!swapoff("/dev/zram0")) {
		nap(pick(200));
		swapon("/dev/zram0", 0);
	}
}

/* execve copies its strings into a stack of the new mm, moves that, and then gives the old mm up. */
RACER(executing, "race-exec")
{
	static char text[3 * PAGE];
	char *arguments[MANY_ARGUMENTS + 2] = { "true" };
	if (fork()) {
		wait(NULL);
		return;
	}
	memset(text, 'a', sizeof(text) - 1);
	for (int i = 1; i <= (int)pick(MANY_ARGUMENTS); i++)
		arguments[i] = text;
	touch(map_anon(AREA_PAGES * PAGE), AREA_PAGES * PAGE, 1);
	execve("/bin/busybox", arguments, (char *[]){ NULL });
	_exit(0);
}

RACER(carrying, "race-uffd-move")
{
	if (fork()) {
		wait(NULL);
		return;
	}
	int fd = open_uffd(FEATURE_MOVE, "UFFDIO_MOVE");
	char *source = map_at_huge_boundary(HUGE_PAGE, 0), *target = map_at_huge_boundary(HUGE_PAGE, 0);
	try_advise(source, HUGE_PAGE, MADV_HUGEPAGE);
	register_range(fd, target, HUGE_PAGE, UFFDIO_REGISTER_MODE_MISSING);
	for (int i = 0; i < 8; i++) {
		size_t pages = 1 + pick(AREA_PAGES), at = pick(512 - pages) * PAGE;
		touch(source, HUGE_PAGE, i);
		if (pick(2))
			try_advise(source, HUGE_PAGE, ADVICE_PAGEOUT);
		if (!pick(3))
			at = 0, pages = 512;
		struct move_request request = { (uintptr_t)target + at, (uintptr_t)source + at, pages * PAGE, 0, 0 };
		ioctl(fd, REQUEST_MOVE, &request);
		try_advise(target, HUGE_PAGE, MADV_DONTNEED);
	}
	_exit(0);
}

/* Huge folios of a file are made, mapped whole, punched and made again; a child sees them all the time. */
RACER(collapsing, "race-collapse")
{
	static char *area;
	static int fd = -1;
	if (fd < 0) {
		char *place = map_at_huge_boundary(HUGE_PAGE, 0);
		fd = memfd_create("race", MFD_CLOEXEC);
		if (fd < 0 || ftruncate(fd, HUGE_PAGE))
			return;
		area = mmap(place, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	}
	touch(area, HUGE_PAGE, 1);
	try_advise(area, HUGE_PAGE, ADVICE_COLLAPSE);
	pid_t pid = fork();
	if (!pid) {
		look(area, HUGE_PAGE);
		try_advise(area + pick(400) * PAGE, AREA_PAGES * PAGE, MADV_DONTNEED);
		look(area, HUGE_PAGE);
		_exit(0);
	}
	fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, pick(400) * PAGE, AREA_PAGES * PAGE);
	if (pick(2))
		try_advise(area, HUGE_PAGE, ADVICE_PAGEOUT);
	waitpid(pid, NULL, 0);
}

/* A PMD table of hugetlb that processes share and leave: a 1 GB aligned mapping of a file of a few folios. */
RACER(sharing_tables, "race-hugetlb-pmd")
{
	int fd = open("/mnt/hugetlb/race", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fork()) {
		close(fd);
		wait(NULL);
		return;
	}
	char *hole = mmap(NULL, 2 * GIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *place = (char *)(((uintptr_t)hole + GIB - 1) & ~(GIB - 1));
	munmap(hole, 2 * GIB);
	if (fd < 0 || ftruncate(fd, GIB))
		_exit(0);
	char *area = mmap(place, GIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, fd, 0);
	if (area == MAP_FAILED)
		_exit(0);
	for (int i = 0; i < 3; i++) {
		if (!fork()) {
			look(area, PAGE);
			look(area + HUGE_PAGE, PAGE);
			if (pick(2))
				munmap(area + 2 * HUGE_PAGE, 2 * HUGE_PAGE);
			nap(pick(20));
			_exit(0);
		}
		area[0] = i;
	}
	while (wait(NULL) > 0)
		;
	_exit(0);
}

/* Guard regions come and go; forks take them along. */
RACER(guarding, "race-guard")
{
	static char *area;
	if (!area)
		area = map_anon(AREA_PAGES * PAGE);
	size_t at = pick(AREA_PAGES / 2) * PAGE;
	touch(area, at, 1);
	try_advise(area + at, 8 * PAGE, ADVICE_GUARD);
	if (!fork())
		_exit(0);
	try_advise(area + at, 8 * PAGE, ADVICE_GUARD + 1);
	touch(area, AREA_PAGES * PAGE, 2);
	wait(NULL);
}

/* Long-term pins while forks go on: children get copies at once. */
RACER(pinning, "race-pin")
{
	struct io_uring_params parameters;
	memset(&parameters, 0, sizeof(parameters));
	if (fork()) {
		wait(NULL);
		return;
	}
	int fd = syscall(SYS_io_uring_setup, 4, &parameters);
	char *area = map_at_huge_boundary(HUGE_PAGE, 0);
	try_advise(area, HUGE_PAGE, MADV_HUGEPAGE);
	for (int i = 0; fd >= 0 && i < 6; i++) {
		touch(area, AREA_PAGES * PAGE, i);
		struct iovec buffer = { area + pick(AREA_PAGES / 2) * PAGE, 8 * PAGE };
		syscall(SYS_io_uring_register, fd, IORING_REGISTER_BUFFERS, &buffer, 1);
		if (!fork()) {
			touch(area, AREA_PAGES * PAGE, 9);
			_exit(0);
		}
		if (pick(2))
			try_advise(area, AREA_PAGES * PAGE, MADV_DONTNEED);
		syscall(SYS_io_uring_register, fd, IORING_UNREGISTER_BUFFERS, NULL, 0);
		wait(NULL);
	}
	_exit(0);
}

/* Huge folios go to the swap cache whole, and come back a page at a time. */
RACER(swapping_whole, "race-thp-swap")
{
	static char *area;
	if (!area)
		area = map_at_huge_boundary(2 * HUGE_PAGE, 0);
	try_advise(area, 2 * HUGE_PAGE, MADV_HUGEPAGE);
	touch(area, 2 * HUGE_PAGE, 1 + pick(100));
	if (!pick(3) && !fork()) {
		try_advise(area, HUGE_PAGE, ADVICE_PAGEOUT);
		look(area, 8 * PAGE);
		_exit(0);
	}
	try_advise(area, 2 * HUGE_PAGE, ADVICE_PAGEOUT);
	look(area + pick(512) * PAGE, PAGE);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	if (pick(2))
		try_advise(area, 2 * HUGE_PAGE, MADV_DONTNEED);
}

/* hugetlb folios and huge folios that two processes map go from node to node. */
RACER(moving_huge, "race-move-huge")
{
	enum { MOVE_ALL = 4, PAGES = 3 };
	if (fork()) {
		wait(NULL);
		return;
	}
	void *pages[PAGES];
	int nodes[PAGES], status[PAGES];
	char *area = map_at_huge_boundary(2 * HUGE_PAGE, 0);
	char *hugetlb = mmap(NULL, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	try_advise(area, 2 * HUGE_PAGE, MADV_HUGEPAGE);
	touch(area, 2 * HUGE_PAGE, 3);
	if (hugetlb == MAP_FAILED)
		hugetlb = area;
	hugetlb[0] = 1;
	pid_t child = fork();
	if (!child) {
		look(area, HUGE_PAGE);
		look(hugetlb, PAGE);
		nap(30 + pick(50));
		_exit(0);
	}
	for (int turn = 0; turn < 8; turn++) {
		for (int i = 0; i < PAGES; i++) {
			pages[i] = i < 2 ? area + i * HUGE_PAGE : hugetlb;
			nodes[i] = (turn + i) % 2;
		}
		syscall(SYS_move_pages, 0, (unsigned long)PAGES, pages, nodes, status, MOVE_ALL);
		touch(area, PAGE, turn);
	}
	waitpid(child, NULL, 0);
	_exit(0);
}
