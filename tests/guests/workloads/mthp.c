/* Anonymous and shmem folios of every size between a page and 2 MB that the kernel offers. */
#define _GNU_SOURCE
#include "hold.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t sizes_kb[] = { 8, 16, 32, 64, 128, 256, 512, 1024 };
enum { NR_SIZES = sizeof(sizes_kb) / sizeof(sizes_kb[0]) };

/* Allow one size only, so that a fault cannot take another; false when the kernel does not offer it. */
static bool allow(size_t kb, const char *file, const char *policy)
{
	char path[120];
	snprintf(path, sizeof(path), "/sys/kernel/mm/transparent_hugepage/hugepages-%zukB/%s", kb, file);
	return access(path, W_OK) == 0 && write_text(path, policy);
}

/* Two folios of one size next to each other. */
static char *map_mthp(size_t kb)
{
	size_t size = kb * KIB;
	/* Not on a 2 MB boundary: there no size but this one fits. */
	char *area = map_at_huge_boundary(2 * size, size);
	if (!allow(kb, "enabled", "madvise"))
		return NULL;
	advise(area, 2 * size, MADV_HUGEPAGE, "MADV_HUGEPAGE");
	touch(area, 2 * size, 1);
	allow(kb, "enabled", "never");
	return is_thp(area) ? area : NULL;
}

HOLD(every_size, "mthp-sizes", PHASE_STATE)
{
	char held[200] = "";
	for (int i = 0; i < NR_SIZES; i++)
		if (map_mthp(sizes_kb[i]))
			snprintf(held + strlen(held), sizeof(held) - strlen(held), " %zukB", sizes_kb[i]);
	if (!held[0])
		skip("the kernel has no folio sizes below 2 MB for anonymous memory");
	note("sizes%s", held);
}

static char *map_mthp_or_skip(size_t kb)
{
	char *area = map_mthp(kb);
	if (!area)
		skip("no %zu kB folios", kb);
	return area;
}

static void copy_a_few(void *area)
{
	touch((char *)area + 2 * PAGE, 3 * PAGE, 5);
}

static void drop_half(void *area)
{
	munmap((char *)area + 8 * PAGE, 8 * PAGE);
}

HOLD(forked, "mthp-fork-cow", PHASE_STATE)
{
	char *area = map_mthp_or_skip(64);
	spawn("mthp-cow", copy_a_few, area);
	spawn("mthp-drop", drop_half, area);
	touch(area + 14 * PAGE, PAGE, 6);
}

/* Shared by more processes than a folio can name one by one, then by fewer again. */
static void leave(void *area)
{
	munmap(area, 128 * KIB);
}

static void keep_all(void *area)
{
	look(area, 128 * KIB);
}

HOLD(many_sharers, "mthp-many-mms", PHASE_STATE)
{
	char *area = map_mthp_or_skip(64);
	spawn("mthp-keep", keep_all, area);
	spawn("mthp-keep", keep_all, area);
	spawn("mthp-leave", leave, area);
	spawn("mthp-leave", leave, area);
	munmap(area + 64 * KIB, 64 * KIB);
}

HOLD(partly_unmapped, "mthp-partial", PHASE_STATE)
{
	char *area = map_mthp_or_skip(128);
	munmap(area, 5 * PAGE);
	munmap(area + 200 * KIB, 8 * PAGE);
}

HOLD(moved, "mthp-moved", PHASE_STATE)
{
	char *area = map_mthp_or_skip(32);
	char *target = map_at_huge_boundary(32 * KIB, 3 * PAGE);
	if (mremap(area, 32 * KIB, 32 * KIB, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
		fail("mremap");
	/* Half of the second folio moves: one folio, two VMAs that are far apart. */
	char *half = map_at_huge_boundary(4 * PAGE, 0);
	if (mremap(area + 32 * KIB, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, half) != half)
		fail("mremap of a half");
}

static void look_at_half(void *area)
{
	look(area, 8 * PAGE);
}

HOLD(shmem_size, "mthp-shmem", PHASE_STATE)
{
	enum { SIZE_KB = 64 };
	if (!allow(SIZE_KB, "shmem_enabled", "always"))
		skip("no shmem folio sizes below 2 MB");
	char *area = mmap(NULL, 2 * SIZE_KB * KIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		fail("mmap");
	touch(area, 2 * SIZE_KB * KIB, 1);
	allow(SIZE_KB, "shmem_enabled", "never");
	if (!is_thp(area))
		note("shmem gave small folios");
	spawn("mthp-shmem-half", look_at_half, area);
}
