/* 2 MB anonymous folios: PMD-mapped, PTE-mapped, partly unmapped, and both at once. */
#define _GNU_SOURCE
#include "hold.h"

#include <sys/mman.h>

HOLD(pmd_mapped, "thp-pmd", PHASE_STATE)
{
	char *thp = map_thp(2 * HUGE_PAGE);
	touch(thp, 2 * HUGE_PAGE, 1);
}

/* The first folio loses its tail, the second one page in the middle: both go on the deferred split queue. */
HOLD(partly_unmapped, "thp-partial", PHASE_STATE)
{
	char *thp = map_thp(2 * HUGE_PAGE);
	munmap(thp + HUGE_PAGE - 100 * PAGE, 100 * PAGE);
	munmap(thp + HUGE_PAGE + 7 * PAGE, PAGE);
}

/* Changing the protection of one page splits the PMD but not the folio. */
HOLD(pte_mapped, "thp-pte", PHASE_STATE)
{
	char *thp = map_thp(HUGE_PAGE);
	if (mprotect(thp + 33 * PAGE, PAGE, PROT_READ))
		fail("mprotect");
}

static void split_own_table(void *start)
{
	char *thp = start;
	if (mprotect(thp + 5 * PAGE, 3 * PAGE, PROT_READ))
		fail("mprotect");
}

static void split_and_drop(void *start)
{
	char *thp = start;
	munmap(thp + 10 * PAGE, 20 * PAGE);
}

static void keep(void *start)
{
	(void)start;
}

/* The parent keeps a PMD; one child maps the same folio by PTEs, one by most of them, one by a PMD. */
HOLD(double_mapped, "thp-double-map", PHASE_STATE)
{
	char *thp = map_thp(HUGE_PAGE);
	spawn("dm-pte", split_own_table, thp);
	spawn("dm-partial", split_and_drop, thp);
	spawn("dm-pmd", keep, thp);
}

/* A 2 MB folio mapped away from its natural alignment by mremap, so only by PTEs. */
HOLD(moved_off_boundary, "thp-moved", PHASE_STATE)
{
	char *thp = map_thp(HUGE_PAGE);
	char *target = map_at_huge_boundary(HUGE_PAGE, 16 * PAGE);
	if (mremap(thp, HUGE_PAGE, HUGE_PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
		fail("mremap");
}
