/* hugetlb folios: private with fork and copy, shared, and shared with one page table for many processes. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

static void *map_private(size_t pages)
{
	void *area = mmap(NULL, pages * HUGE_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (area == MAP_FAILED)
		skip("no hugetlb folios");
	return area;
}

/* Twelve folios with all their struct pages, then twelve whose tail struct pages the kernel may give away. */
static void reserve(void)
{
	if (read_number("/proc/sys/vm/nr_hugepages") > 0)
		return;
	write_text("/proc/sys/vm/nr_hugepages", "12");
	write_text("/proc/sys/vm/hugetlb_optimize_vmemmap", "1");
	write_text("/proc/sys/vm/nr_hugepages", "24");
	write_text("/proc/sys/vm/hugetlb_optimize_vmemmap", "0");
}

static void copy_first(void *area)
{
	*(char *)area = 2;
}

static void look_at_first(void *area)
{
	look(area, PAGE);
}

HOLD(private_pages, "hugetlb-private", PHASE_STATE)
{
	reserve();
	char *area = map_private(3);
	area[0] = area[HUGE_PAGE] = 1;
	spawn("hugetlb-copy", copy_first, area);
	spawn("hugetlb-look", look_at_first, area);
}

static void share_small(void *path)
{
	int fd = open_or_fail(path, O_RDWR | O_CREAT);
	if (ftruncate(fd, 2 * HUGE_PAGE))
		fail("ftruncate");
	char *area = map_file(fd, 2 * HUGE_PAGE, MAP_SHARED);
	area[0] = area[HUGE_PAGE] = 1;
	close(fd);
}

HOLD(shared_small, "hugetlb-shared", PHASE_STATE)
{
	static char path[] = "/mnt/hugetlb/small";
	reserve();
	share_small(path);
	spawn("hugetlb-sharer", share_small, path);
	spawn("hugetlb-sharer", share_small, path);
}

/* A 1 GB aligned shared mapping of a sparse file: the kernel lets all processes use one PMD table. */
static char *map_aligned_giant(const char *path)
{
	size_t length = GIB + 2 * HUGE_PAGE;
	int fd = open_or_fail(path, O_RDWR | O_CREAT);
	if (ftruncate(fd, length))
		fail("ftruncate");
	char *hole = mmap(NULL, length + GIB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (hole == MAP_FAILED)
		fail("mmap of a hole");
	munmap(hole, length + GIB);
	char *start = (char *)(((uintptr_t)hole + GIB - 1) & ~(GIB - 1));
	char *area = mmap(start, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE | MAP_FIXED, fd, 0);
	if (area == MAP_FAILED)
		fail("mmap of a giant hugetlb file");
	close(fd);
	return area;
}

static void fault_one(void *path)
{
	*map_aligned_giant(path) = 1;
}

static void fault_none(void *path)
{
	map_aligned_giant(path);
}

HOLD(shared_table, "hugetlb-shared-pmd", PHASE_STATE)
{
	static char path[] = "/mnt/hugetlb/giant";
	reserve();
	char *area = map_aligned_giant(path);
	area[0] = area[300 * HUGE_PAGE] = area[511 * HUGE_PAGE] = 1;
	area[GIB] = 1;
	spawn("hugetlb-pmd", fault_one, path);
	spawn("hugetlb-pmd", fault_one, path);
	spawn("hugetlb-none", fault_none, path);
}

/* Takes most of what is left of the pool, so that folios of both kinds are mapped. */
HOLD(optimised, "hugetlb-vmemmap", PHASE_STATE)
{
	reserve();
	if (read_number("/proc/sys/vm/hugetlb_optimize_vmemmap") < 0)
		skip("no vmemmap optimisation");
	char *area = map_private(8);
	for (int i = 0; i < 8; i++)
		area[i * HUGE_PAGE] = 1;
	spawn("vmemmap-child", look_at_first, area + 7 * HUGE_PAGE);
}
