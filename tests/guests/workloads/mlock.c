/* Locked memory: whole areas, parts of a 2 MB folio, on fault, and a locked file. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static void lock(void *start, size_t length)
{
	if (mlock(start, length))
		fail("mlock");
}

static void copy_locked(void *area)
{
	touch(area, 2 * PAGE, 9);
}

HOLD(locked_small, "mlock-small", PHASE_STATE)
{
	char *area = map_anon(12 * PAGE);
	touch(area, 4 * PAGE, 1);
	lock(area, 8 * PAGE);
	/* The child inherits the pages, not the lock. */
	spawn("mlock-child", copy_locked, area);
	munmap(area + 3 * PAGE, PAGE);
}

HOLD(locked_thp, "mlock-thp", PHASE_STATE)
{
	char *thp = map_thp(3 * HUGE_PAGE);
	touch(thp, 3 * HUGE_PAGE, 1);
	lock(thp, HUGE_PAGE);
	lock(thp + HUGE_PAGE, HUGE_PAGE / 2);
	/* Locked by one process, mapped by its unlocked child. */
	spawn("mlock-thp-child", copy_locked, thp);
}

HOLD(locked_on_fault, "mlock-onfault", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 2 * PAGE, 1);
	if (mlock2(area, 8 * PAGE, MLOCK_ONFAULT))
		fail("mlock2");
	touch(area + 4 * PAGE, 2 * PAGE, 1);
}

HOLD(locked_file, "mlock-file", PHASE_STATE)
{
	int fd = open_or_fail("/mnt/tmp/locked", O_RDWR | O_CREAT);
	if (ftruncate(fd, 8 * PAGE))
		fail("ftruncate");
	char *area = map_file(fd, 8 * PAGE, MAP_SHARED);
	lock(area, 8 * PAGE);
	look(map_file(fd, 8 * PAGE, MAP_SHARED), 8 * PAGE);
}
