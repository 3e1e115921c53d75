/* Legal VMAs that look odd: sealed, keyed, growing, remapped in pieces, without pages, cleared of soft-dirty bits. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SYS_MSEAL = 462 };

static void stay(void *area)
{
	(void)area;
}

/* Four protection-key bits in every entry of the range. */
HOLD(keyed, "zoo-pkeys", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE), *thp = map_thp(HUGE_PAGE);
	int key = pkey_alloc(0, 0);
	if (key < 0)
		skip("no protection keys: errno %d", errno);
	touch(area, 8 * PAGE, 1);
	if (pkey_mprotect(area + PAGE, 4 * PAGE, PROT_READ | PROT_WRITE, key) ||
	    pkey_mprotect(thp, HUGE_PAGE, PROT_READ | PROT_WRITE, key))
		fail("pkey_mprotect");
	spawn("zoo-pkeys-kid", stay, area);
}

HOLD(sealed, "zoo-mseal", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 4 * PAGE, 1);
	if (syscall(SYS_MSEAL, area, 8 * PAGE, 0))
		skip("mseal: not in this kernel");
	spawn("zoo-mseal-kid", stay, area);
}

HOLD(growing, "zoo-growsdown", PHASE_STATE)
{
	char *hole = map_at_huge_boundary(HUGE_PAGE, 0);
	munmap(hole, HUGE_PAGE);
	char *top = hole + HUGE_PAGE - PAGE;
	if (mmap(top, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0) !=
	    top)
		fail("mmap of a stack");
	/* Each touch below the start lets the VMA grow: its offset falls with it. */
	for (int i = 0; i < 6; i++)
		touch(top - i * PAGE, PAGE, 1);
	spawn("zoo-grown-kid", stay, top);
}

/* One file's pages in another order: as many VMAs as pieces. */
HOLD(shuffled, "zoo-remap-file", PHASE_STATE)
{
	int fd = open_or_fail("/mnt/tmp/shuffled", O_RDWR | O_CREAT);
	if (ftruncate(fd, 8 * PAGE))
		fail("ftruncate");
	char *area = map_file(fd, 8 * PAGE, MAP_SHARED);
	touch(area, 8 * PAGE, 1);
	for (int i = 0; i < 4; i++)
		if (syscall(SYS_remap_file_pages, area + 2 * i * PAGE, PAGE, 0, 7 - 2 * i, 0))
			skip("remap_file_pages: errno %d", errno);
	look(area, 8 * PAGE);
	close(fd);
}

/* An anon_vma and page tables that nothing is left of but themselves. */
HOLD(emptied, "zoo-empty-tables", PHASE_STATE)
{
	char *area = map_at_huge_boundary(4 * HUGE_PAGE, 0);
	for (size_t at = 0; at < 4 * HUGE_PAGE; at += HUGE_PAGE)
		touch(area + at, 3 * PAGE, 1);
	advise(area, 2 * HUGE_PAGE, MADV_DONTNEED, "MADV_DONTNEED");
	spawn("zoo-emptied-kid", stay, area);
	advise(area + 2 * HUGE_PAGE, 2 * HUGE_PAGE, MADV_DONTNEED, "MADV_DONTNEED");
	munmap(area + HUGE_PAGE, HUGE_PAGE);
}

HOLD(cleaned, "zoo-soft-dirty", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE), *thp = map_thp(HUGE_PAGE);
	touch(area, 8 * PAGE, 1);
	if (!write_text("/proc/self/clear_refs", "4") || !write_text("/proc/self/clear_refs", "1"))
		skip("clear_refs: errno %d", errno);
	/* Exclusive pages whose entries are read-only until they are written again. */
	touch(area, 2 * PAGE, 2);
	look(thp, PAGE);
}

/* Locked now and for all that comes, some of it without a page. */
HOLD(all_locked, "zoo-mlockall", PHASE_STATE)
{
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT))
		fail("mlockall");
	char *area = map_anon(8 * PAGE);
	touch(area, 4 * PAGE, 1);
	/* Locks are not inherited: the child maps the same pages in VMAs that are not locked. */
	spawn("zoo-unlocked-kid", stay, area);
}

/* The offset of a VMA far above any address: moved up, cut, moved down again. */
HOLD(far_offset, "zoo-far-offset", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	char *down = mmap((void *)(64 * MIB), 8 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (down == MAP_FAILED || mremap(area + 2 * PAGE, 4 * PAGE, 4 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, down) != down)
		fail("mremap");
	/* It grows where it is: what comes after has offsets of the old place, too. */
	if (mremap(down, 4 * PAGE, 16 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED)
		fail("mremap that grows");
	spawn("zoo-far-kid", stay, down);
}
