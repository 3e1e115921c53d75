/* The zero page and the huge zero page. */
#define _GNU_SOURCE
#include "hold.h"

#include <sys/mman.h>

HOLD(zero_page, "zero-page", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	look(area, 8 * PAGE);
	touch(area + 2 * PAGE, PAGE, 1);
}

HOLD(huge_zero_page, "zero-huge", PHASE_STATE)
{
	char *area = map_at_huge_boundary(2 * HUGE_PAGE, 0);
	advise(area, 2 * HUGE_PAGE, MADV_HUGEPAGE, "MADV_HUGEPAGE");
	look(area, PAGE);
	look(area + HUGE_PAGE, PAGE);
	/* The second one is split: zero pages by PTE, one of them written. */
	if (mprotect(area + HUGE_PAGE + 3 * PAGE, PAGE, PROT_READ))
		fail("mprotect");
	touch(area + HUGE_PAGE + 9 * PAGE, PAGE, 1);
}
