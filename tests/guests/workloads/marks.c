/* Memory given back lazily (MADV_FREE) and guard regions. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ADVICE_GUARD_INSTALL = 102, FLAG_DROPPABLE = 8 };

HOLD(lazily_freed, "lazyfree", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	advise(area, 6 * PAGE, MADV_FREE, "MADV_FREE");
	touch(area, PAGE, 2);
	char *thp = map_thp(2 * HUGE_PAGE);
	touch(thp, 2 * HUGE_PAGE, 1);
	advise(thp, HUGE_PAGE, MADV_FREE, "MADV_FREE");
	advise(thp + HUGE_PAGE, 8 * PAGE, MADV_FREE, "MADV_FREE");
}

static void keep(void *area)
{
	(void)area;
}

HOLD(guarded, "guard-anon", PHASE_STATE)
{
	char *area = map_anon(16 * PAGE);
	touch(area, 16 * PAGE, 1);
	advise(area + 2 * PAGE, 4 * PAGE, ADVICE_GUARD_INSTALL, "MADV_GUARD_INSTALL");
	char *thp = map_thp(HUGE_PAGE);
	advise(thp + 8 * PAGE, 2 * PAGE, ADVICE_GUARD_INSTALL, "MADV_GUARD_INSTALL");
	spawn("guard-child", keep, area);
}

HOLD(guarded_file, "guard-file", PHASE_STATE)
{
	int fd = open_or_fail("/mnt/tmp/guarded", O_RDWR | O_CREAT);
	if (ftruncate(fd, 8 * PAGE))
		fail("ftruncate");
	char *area = map_file(fd, 8 * PAGE, MAP_SHARED);
	touch(area, 8 * PAGE, 1);
	advise(area + PAGE, 2 * PAGE, ADVICE_GUARD_INSTALL, "MADV_GUARD_INSTALL on a file");
	close(fd);
}

HOLD(droppable, "droppable", PHASE_STATE)
{
	char *area = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, FLAG_DROPPABLE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		skip("MAP_DROPPABLE: not in this kernel");
	touch(area, 8 * PAGE, 1);
	spawn("droppable-child", keep, area);
}
