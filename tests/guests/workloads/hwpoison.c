/* Pages taken out of use: poisoned ones leave an entry in every page table, softly offlined ones are migrated. */
#define _GNU_SOURCE
#include "hold.h"

#include <signal.h>
#include <sys/mman.h>

enum { ADVICE_HWPOISON = 100, ADVICE_SOFT_OFFLINE = 101 };

static void keep(void *area)
{
	(void)area;
}

static void stay_alive(int number)
{
	(void)number;
}

HOLD(poisoned, "hwpoison", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	/* The one who asks for the poison is told by a signal. */
	signal(SIGBUS, stay_alive);
	spawn("hwpoison-child", keep, area);
	advise(area + 2 * PAGE, PAGE, ADVICE_HWPOISON, "MADV_HWPOISON");
	try_advise(area + 5 * PAGE, PAGE, ADVICE_SOFT_OFFLINE);
}
