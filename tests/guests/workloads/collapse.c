/* 2 MB folios made by collapse instead of by fault. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ADVICE_COLLAPSE = 25 };

/* A collapse may meet a page that some batch still holds: try a few times. */
static void collapse(char *area, const char *what)
{
	for (int attempt = 0; attempt < 10; attempt++) {
		if (try_advise(area, HUGE_PAGE, ADVICE_COLLAPSE) && is_thp(area))
			return;
		nap(100);
	}
	skip("MADV_COLLAPSE of %s: errno %d", what, errno);
}

HOLD(collapsed_anon, "collapse-anon", PHASE_STATE)
{
	char *area = map_at_huge_boundary(HUGE_PAGE, 0);
	advise(area, HUGE_PAGE, MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE");
	touch(area, HUGE_PAGE, 1);
	advise(area, HUGE_PAGE, MADV_HUGEPAGE, "MADV_HUGEPAGE");
	collapse(area, "anonymous memory");
}

/* The child shares pages with its parent and collapses its own view of them. */
static void collapse_shared(void *area)
{
	/* Without any writable entry older kernels refuse. */
	touch(area, 2 * PAGE, 3);
	collapse(area, "memory shared by fork");
}

HOLD(collapsed_child, "collapse-child", PHASE_STATE)
{
	char *area = map_at_huge_boundary(HUGE_PAGE, 0);
	advise(area, HUGE_PAGE, MADV_NOHUGEPAGE, "MADV_NOHUGEPAGE");
	touch(area, 64 * PAGE, 1);
	advise(area, HUGE_PAGE, MADV_HUGEPAGE, "MADV_HUGEPAGE");
	spawn("collapser", collapse_shared, area);
}

static void share_file(void *path)
{
	int fd = open_or_fail(path, O_RDWR);
	look(map_file(fd, 16 * PAGE, MAP_SHARED), 16 * PAGE);
	close(fd);
}

/* Small tmpfs pages, mapped by two processes, become one 2 MB folio. */
HOLD(collapsed_shmem, "collapse-shmem", PHASE_STATE)
{
	static char path[] = "/mnt/tmp/collapsed";
	int fd = open_or_fail(path, O_RDWR | O_CREAT);
	if (ftruncate(fd, HUGE_PAGE))
		fail("ftruncate");
	char *area = map_at_huge_boundary(HUGE_PAGE, 0);
	if (mmap(area, HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		fail("mmap");
	touch(area, HUGE_PAGE, 1);
	spawn("collapse-sharer", share_file, path);
	collapse(area, "shmem");
	touch(area, HUGE_PAGE, 2);
	close(fd);
}
