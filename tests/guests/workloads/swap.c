/* Swapped memory: slots shared by fork, the swap cache, whole 2 MB folios, shmem, watched entries. */
#define _GNU_SOURCE
#include "hold.h"
#include "uffd.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

enum { AREA_PAGES = 24, ADVICE_PAGEOUT = 21 };

/* Different content in every page, so that nothing is stored as one repeated word. */
static void fill(char *area, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		for (size_t at = 0; at < PAGE; at += sizeof(uint32_t))
			*(uint32_t *)(area + i * PAGE + at) = (i + 1) * 2654435761U * (at + 1);
}

static void page_out(char *area, size_t length)
{
	for (int attempt = 0; attempt < 20 && !is_swapped(area + length - PAGE); attempt++) {
		advise(area, length, ADVICE_PAGEOUT, "MADV_PAGEOUT");
		nap(30);
	}
	if (!is_swapped(area + length - PAGE))
		skip("nothing was swapped out");
}

static void read_some_back(void *area)
{
	look(area, 4 * PAGE);
	touch((char *)area + 6 * PAGE, 2 * PAGE, 1);
}

static void stay(void *area)
{
	(void)area;
}

HOLD(swapped, "swap-anon", PHASE_RECLAIM)
{
	char *area = map_anon(AREA_PAGES * PAGE);
	fill(area, AREA_PAGES);
	memset(area + 20 * PAGE, 0, 2 * PAGE);
	page_out(area, AREA_PAGES * PAGE);
	look(area + 16 * PAGE, 2 * PAGE);
}

/* Slots with several users: a child that reads some back leaves them in the swap cache. */
HOLD(shared_slots, "swap-fork", PHASE_RECLAIM)
{
	char *area = map_anon(AREA_PAGES * PAGE);
	fill(area, AREA_PAGES);
	page_out(area, AREA_PAGES * PAGE);
	spawn("swap-reader", read_some_back, area);
	spawn("swap-sleeper", stay, area);
}

HOLD(swapped_thp, "swap-thp", PHASE_RECLAIM)
{
	char *thp = map_thp(HUGE_PAGE);
	fill(thp, HUGE_PAGE / PAGE);
	page_out(thp, HUGE_PAGE);
	look(thp + 100 * PAGE, 4 * PAGE);
}

HOLD(swapped_shmem, "swap-shmem", PHASE_RECLAIM)
{
	int fd = open_or_fail("/mnt/tmp/swapped", O_RDWR | O_CREAT);
	if (ftruncate(fd, AREA_PAGES * PAGE))
		fail("ftruncate");
	char *area = map_file(fd, AREA_PAGES * PAGE, MAP_SHARED);
	fill(area, AREA_PAGES);
	for (int attempt = 0; attempt < 20 && pagemap_entry(area) >> 63; attempt++) {
		advise(area, AREA_PAGES * PAGE, ADVICE_PAGEOUT, "MADV_PAGEOUT");
		nap(30);
	}
	if (pagemap_entry(area) >> 63)
		skip("shmem was not swapped out");
	look(area + 2 * PAGE, 3 * PAGE);
	close(fd);
}

HOLD(watched, "swap-uffd-wp", PHASE_RECLAIM)
{
	int fd = open_uffd(0, "userfaultfd");
	char *area = map_anon(8 * PAGE);
	fill(area, 8);
	register_range(fd, area, 8 * PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, area, 8 * PAGE);
	page_out(area, 8 * PAGE);
	look(area, 2 * PAGE);
}

/* A disk instead of zram: written pages stay in the swap cache although nothing maps them. */
HOLD(swapped_to_disk, "swap-disk", PHASE_RECLAIM)
{
	if (swapon("/dev/vdc", SWAP_FLAG_PREFER | 200))
		skip("no swap disk");
	/* More pages than the slots of zram that each processor has set aside. */
	enum { DISK_PAGES = 700 };
	char *area = map_anon(DISK_PAGES * PAGE);
	advise(area, DISK_PAGES * PAGE, MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE");
	fill(area, DISK_PAGES);
	page_out(area, DISK_PAGES * PAGE);
	area += (DISK_PAGES - AREA_PAGES) * PAGE;
	look(area + 8 * PAGE, 3 * PAGE);
	spawn("swap-disk-child", stay, area);
	look(area + 12 * PAGE, 2 * PAGE);
}
