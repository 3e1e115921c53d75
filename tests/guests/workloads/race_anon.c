/* Racers on anonymous memory: fork and exit, mremap, mprotect, madvise, mlock. */
#define _GNU_SOURCE
#include "hold.h"
#include "race.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { POOL_PAGES = 1024, MAX_CHUNK = 64 };

/* One area a process, inherited over fork and reshaped all the time. */
static char *pool;

static char *own_pool(void)
{
	if (!pool) {
		pool = map_at_huge_boundary(POOL_PAGES * PAGE, 0);
		try_advise(pool, POOL_PAGES * PAGE, MADV_HUGEPAGE);
		touch(pool, POOL_PAGES * PAGE, 1);
	}
	return pool;
}

static char *any_range(size_t *length)
{
	size_t pages = 1 + pick(MAX_CHUNK);
	*length = pages * PAGE;
	return own_pool() + pick(POOL_PAGES - pages) * PAGE;
}

static void fill_again(void)
{
	mmap(own_pool(), POOL_PAGES * PAGE, PROT_READ | PROT_WRITE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	try_advise(pool, POOL_PAGES * PAGE, MADV_HUGEPAGE);
	for (size_t at = 0; at < POOL_PAGES * PAGE; at += PAGE * (1 + pick(3)))
		pool[at] = 1;
}

RACER(forking, "race-fork")
{
	size_t length;
	char *start = any_range(&length);
	pid_t pid = fork();
	if (!pid) {
		touch(start, length, 2);
		if (!fork()) {
			munmap(start, length);
			_exit(0);
		}
		if (pick(2))
			execl("/bin/busybox", "true", NULL);
		_exit(0);
	}
	touch(start, length / 2 + PAGE, 3);
	waitpid(pid, NULL, 0);
}

RACER(moving, "race-mremap")
{
	size_t length;
	char *start = any_range(&length);
	char *target = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (target == MAP_FAILED)
		return;
	if (mremap(start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == MAP_FAILED)
		return;
	touch(target, length, 3);
	if (mremap(target, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, start) == MAP_FAILED || !pick(20))
		fill_again();
}

RACER(protecting, "race-mprotect")
{
	static const int protections[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_EXEC };
	size_t length;
	char *start = any_range(&length);
	mprotect(start, length, protections[pick(3)]);
	if (pick(2))
		mlock(start, length);
	munlock(start, length);
	mprotect(start, length, PROT_READ | PROT_WRITE);
	touch(start, length, 4);
	if (!pick(50))
		fill_again();
}

RACER(advising, "race-madvise")
{
	static const int advices[] = { MADV_DONTNEED, MADV_FREE, 20, 21, 25, MADV_NOHUGEPAGE, MADV_HUGEPAGE };
	size_t length;
	char *start = any_range(&length);
	int advice = advices[pick(sizeof(advices) / sizeof(advices[0]))];
	if (advice == 25)
		try_advise(own_pool() + pick(2) * HUGE_PAGE, HUGE_PAGE, advice);
	else
		try_advise(start, length, advice);
	touch(start, length, 5);
	look(own_pool() + pick(POOL_PAGES) * PAGE, PAGE);
	if (!pick(100))
		fill_again();
}

RACER(merging, "race-ksm")
{
	size_t length;
	char *start = any_range(&length);
	try_advise(start, length, MADV_MERGEABLE);
	memset(start, pick(3), length);
	nap(pick(20));
	touch(start, length, 6);
	if (!pick(10))
		try_advise(start, length, MADV_UNMERGEABLE);
	if (!pick(50))
		fill_again();
}

RACER(swapping, "race-swap")
{
	size_t length;
	char *start = any_range(&length);
	for (size_t at = 0; at < length; at += sizeof(uint32_t) * 4)
		*(uint32_t *)(start + at) = random();
	try_advise(start, length, 21);
	if (!pick(4)) {
		pid_t pid = fork();
		if (!pid) {
			look(start, length);
			touch(start, PAGE, 2);
			_exit(0);
		}
		look(start, length);
		waitpid(pid, NULL, 0);
	}
	touch(start, length / 2 + PAGE, 7);
	if (!pick(50))
		fill_again();
}
