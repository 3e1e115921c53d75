/* Fork trees, three generations deep, with pages copied before and after each fork. */
#define _GNU_SOURCE
#include "hold.h"

#include <sys/mman.h>

enum { TREE_PAGES = 24, DEPTH = 3, WIDTH = 2 };

struct node {
	char *area;
	int level;
};

static void grow(void *argument)
{
	struct node here = *(struct node *)argument;
	/* Each level writes its own quarter, so that every generation owns some pages and shares the rest. */
	touch(here.area + here.level * (TREE_PAGES / 4) * PAGE, 3 * PAGE, here.level);
	if (here.level == DEPTH)
		return;
	struct node next = { here.area, here.level + 1 };
	for (int i = 0; i < WIDTH; i++)
		spawn("fork-leaf", grow, &next);
	/* After the fork: the parent copies one page that the children keep. */
	touch(here.area + (here.level * (TREE_PAGES / 4) + 1) * PAGE, PAGE, 100);
}

HOLD(fork_tree, "fork-tree", PHASE_STATE)
{
	struct node root = { map_anon(TREE_PAGES * PAGE), 0 };
	touch(root.area, TREE_PAGES * PAGE, 7);
	grow(&root);
}

static void copy_some(void *start)
{
	touch((char *)start + 3 * PAGE, 4 * PAGE, 9);
}

/* A 2 MB folio shared by fork; the child copies four pages of it, the parent one. */
HOLD(fork_thp, "fork-thp-cow", PHASE_STATE)
{
	char *thp = map_thp(HUGE_PAGE);
	spawn("thp-cow-child", copy_some, thp);
	touch(thp + 40 * PAGE, PAGE, 9);
}

static void spawn_reader(void *start)
{
	spawn("grandchild", copy_some, start);
}

/* The middle of three generations goes away: its anon_vma stays without an active VMA. */
static void orphan_maker(void *start)
{
	touch(start, 2 * PAGE, 3);
	spawn("orphan", spawn_reader, start);
	munmap(start, 8 * PAGE);
}

HOLD(fork_gap, "fork-gap", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	spawn("gap", orphan_maker, area);
}
