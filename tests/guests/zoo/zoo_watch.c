/* What userfaultfd leaves behind: after unregistering, mremap, UFFDIO_MOVE of swapped pages, in asynchronous mode. */
#define _GNU_SOURCE
#include "hold.h"
#include "uffd.h"

#include <errno.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FEATURE_WP_ASYNC = 1 << 15, ADVICE_PAGEOUT = 21 };

static void unregister(int fd, void *start, size_t length)
{
	struct uffdio_range range = { (uintptr_t)start, length };
	if (ioctl(fd, UFFDIO_UNREGISTER, &range))
		fail("UFFDIO_UNREGISTER");
}

/* hugetlb keeps the bits of entries and the markers of holes when nobody is registered any more. */
HOLD(left_on_hugetlb, "zoo-uffd-left-huge", PHASE_STATE)
{
	int fd = open_uffd(UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM");
	if (!write_text("/proc/sys/vm/nr_hugepages", "8"))
		skip("no hugetlb");
	char *area = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (area == MAP_FAILED)
		skip("no hugetlb folios: errno %d", errno);
	area[0] = 1;
	register_range(fd, area, 2 * HUGE_PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, area, 2 * HUGE_PAGE);
	unregister(fd, area, 2 * HUGE_PAGE);
}

HOLD(left_on_anon, "zoo-uffd-left", PHASE_STATE)
{
	int fd = open_uffd(FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "UFFD_FEATURE_WP_UNPOPULATED");
	char *area = map_anon(16 * PAGE), *thp = map_thp(HUGE_PAGE);
	char *shared = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	touch(area, 8 * PAGE, 1);
	touch(shared, 8 * PAGE, 1);
	char *areas[] = { area, shared };
	for (int i = 0; i < 2; i++) {
		register_range(fd, areas[i], 16 * PAGE, UFFDIO_REGISTER_MODE_WP);
		write_protect(fd, areas[i], 16 * PAGE);
		unregister(fd, areas[i] + 4 * PAGE, 8 * PAGE);
	}
	register_range(fd, thp, HUGE_PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, thp, HUGE_PAGE);
	unregister(fd, thp, HUGE_PAGE / 2);
}

HOLD(moved_away, "zoo-uffd-mremap", PHASE_STATE)
{
	int fd = open_uffd(0, "userfaultfd");
	char *area = map_anon(8 * PAGE), *target = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	register_range(fd, area, 8 * PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, area, 8 * PAGE);
	if (mremap(area, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target) == MAP_FAILED)
		fail("mremap");
}

HOLD(not_waiting, "zoo-uffd-async", PHASE_STATE)
{
	int fd = open_uffd(FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED, "UFFD_FEATURE_WP_ASYNC");
	char *area = map_anon(16 * PAGE), *thp = map_thp(HUGE_PAGE);
	touch(area, 6 * PAGE, 1);
	register_range(fd, area, 16 * PAGE, UFFDIO_REGISTER_MODE_WP);
	register_range(fd, thp, HUGE_PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, area, 16 * PAGE);
	write_protect(fd, thp, HUGE_PAGE);
	/* Writing takes the bit away without asking anybody. */
	touch(area, 2 * PAGE, 2);
	touch(thp, 2 * PAGE, 2);
}

/* Swapped pages move by their entries, watched ones with their bit. */
HOLD(moved_swap, "zoo-uffd-move-swap", PHASE_RECLAIM)
{
	int fd = open_uffd(FEATURE_MOVE, "UFFDIO_MOVE");
	char *source = map_anon(8 * PAGE), *target = map_anon(8 * PAGE);
	for (size_t at = 0; at < 8 * PAGE; at += sizeof(uint32_t))
		*(uint32_t *)(source + at) = at * 2654435761U;
	register_range(fd, source, 8 * PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, source, 4 * PAGE);
	register_range(fd, target, 8 * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	for (int i = 0; i < 20 && !is_swapped(source + 7 * PAGE); i++) {
		try_advise(source, 8 * PAGE, ADVICE_PAGEOUT);
		nap(30);
	}
	if (!is_swapped(source + 7 * PAGE))
		skip("nothing was swapped out");
	struct move_request request = { (uintptr_t)target, (uintptr_t)source, 8 * PAGE, 0, 0 };
	if (ioctl(fd, REQUEST_MOVE, &request))
		fail("UFFDIO_MOVE of swapped pages");
}
