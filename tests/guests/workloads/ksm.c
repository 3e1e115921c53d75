/* Pages merged by KSM: many sharers, stable chains, zero pages, forked after the merge, written after it. */
#define _GNU_SOURCE
#include "hold.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define KSM "/sys/kernel/mm/ksm/"
enum { AREA_PAGES = 12, PATTERNS = 3 };

static char *fill_mergeable(void)
{
	char *area = map_anon(AREA_PAGES * PAGE);
	for (int i = 0; i < AREA_PAGES; i++)
		memset(area + i * PAGE, i < 2 ? 0 : 0x40 + i % PATTERNS, PAGE);
	advise(area, AREA_PAGES * PAGE, MADV_MERGEABLE, "MADV_MERGEABLE");
	return area;
}

static void fill_own(void *unused)
{
	(void)unused;
	fill_mergeable();
}

static void write_merged(void *area)
{
	touch((char *)area + 3 * PAGE, 2 * PAGE, 1);
}

static void look_at_merged(void *area)
{
	look(area, AREA_PAGES * PAGE);
}

HOLD(merged, "ksm-merged", PHASE_DAEMON)
{
	/* Few sharers a page, so that copies and their stable chain appear. */
	write_text(KSM "max_page_sharing", "8");
	write_text(KSM "use_zero_pages", "1");
	write_text(KSM "pages_to_scan", "2000");
	write_text(KSM "sleep_millisecs", "5");
	for (int i = 0; i < 4; i++)
		spawn("ksm-sharer", fill_own, NULL);
	char *area = fill_mergeable();
	long before = read_number(KSM "full_scans");
	if (!write_text(KSM "run", "1"))
		skip("no KSM");
	for (int i = 0; i < 200 && read_number(KSM "full_scans") < before + 5; i++)
		nap(50);
	spawn("ksm-child", look_at_merged, area);
	spawn("ksm-writer", write_merged, area);
	write_text(KSM "run", "0");
	long shared = read_number(KSM "pages_shared");
	if (shared <= 0)
		fail("KSM merged nothing");
	note("pages_shared %ld pages_sharing %ld chains %ld zero %ld", shared, read_number(KSM "pages_sharing"),
	     read_number(KSM "stable_node_chains"), read_number(KSM "ksm_zero_pages"));
}
