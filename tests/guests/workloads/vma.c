/* VMAs that were moved, split, merged, hidden from fork or wiped by it. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static void *move(void *start, size_t length, int flags)
{
	void *target = map_anon(length + PAGE);
	void *got = mremap(start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED | flags, target);
	if (got == MAP_FAILED)
		fail("mremap");
	return got;
}

static void move_again(void *start)
{
	touch(move(start, 8 * PAGE, 0), 2 * PAGE, 3);
}

HOLD(moved, "vma-moved", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	area = move(area, 8 * PAGE, 0);
	spawn("vma-moved-child", move_again, area);
	/* The middle moves away: three VMAs that share one anon_vma. */
	char *parts = map_anon(9 * PAGE);
	touch(parts, 9 * PAGE, 1);
	move(parts + 3 * PAGE, 3 * PAGE, 0);
}

HOLD(left_behind, "vma-dontunmap", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	move(area, 8 * PAGE, MREMAP_DONTUNMAP);
	touch(area, 2 * PAGE, 4);
}

HOLD(split_and_merged, "vma-mprotect", PHASE_STATE)
{
	char *area = map_anon(16 * PAGE);
	touch(area, 16 * PAGE, 1);
	if (mprotect(area + 4 * PAGE, 4 * PAGE, PROT_READ) ||
	    mprotect(area + 10 * PAGE, 2 * PAGE, PROT_READ | PROT_EXEC) ||
	    mprotect(area + 4 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE))
		fail("mprotect");
}

HOLD(no_access, "vma-prot-none", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	char *thp = map_thp(2 * HUGE_PAGE);
	/* One folio loses access whole, by its PMD; of the other only some pages do. */
	if (mprotect(area + 2 * PAGE, 4 * PAGE, PROT_NONE) || mprotect(thp, HUGE_PAGE, PROT_NONE) ||
	    mprotect(thp + HUGE_PAGE + PAGE, 3 * PAGE, PROT_NONE))
		fail("mprotect");
}

static void write_wiped(void *start)
{
	touch(start, 2 * PAGE, 8);
}

HOLD(fork_advice, "vma-fork-advice", PHASE_STATE)
{
	char *hidden = map_anon(4 * PAGE);
	char *wiped = map_anon(4 * PAGE);
	touch(hidden, 4 * PAGE, 1);
	touch(wiped, 4 * PAGE, 1);
	wiped = move(wiped, 4 * PAGE, 0);
	advise(hidden, 4 * PAGE, MADV_DONTFORK, "MADV_DONTFORK");
	advise(wiped, 4 * PAGE, MADV_WIPEONFORK, "MADV_WIPEONFORK");
	spawn("wiped-child", write_wiped, wiped);
}

/* Private /dev/zero: anonymous pages in a VMA that has a file. */
HOLD(dev_zero, "vma-dev-zero", PHASE_STATE)
{
	int fd = open_or_fail("/dev/zero", O_RDWR);
	touch(map_file(fd, 8 * PAGE, MAP_PRIVATE), 4 * PAGE, 1);
	char *shared = mmap(NULL, 4 * PAGE, PROT_READ, MAP_SHARED, open_or_fail("/dev/zero", O_RDONLY), 0);
	if (shared != MAP_FAILED)
		look(shared, 4 * PAGE);
}

/* Neighbours that were written separately and lie side by side: they may share an anon_vma. */
HOLD(neighbours, "vma-neighbours", PHASE_STATE)
{
	char *area = map_anon(12 * PAGE);
	if (mprotect(area + 4 * PAGE, 4 * PAGE, PROT_READ))
		fail("mprotect");
	touch(area, 4 * PAGE, 1);
	touch(area + 8 * PAGE, 4 * PAGE, 1);
	if (mprotect(area + 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE))
		fail("mprotect");
	touch(area + 4 * PAGE, PAGE, 1);
}
