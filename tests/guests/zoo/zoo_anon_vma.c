/* Families of anon_vmas that lost members: reused, orphaned, twenty generations deep, held by KSM or a pipe alone. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define KSM "/sys/kernel/mm/ksm/"
enum { GENERATIONS = 20, AREA_PAGES = 24, SCANS = 4 };

static void grandchild(void *area)
{
	touch((char *)area + 6 * PAGE, PAGE, 3);
}

static void give_up_then_fork(void *area)
{
	touch((char *)area + 2 * PAGE, 2 * PAGE, 2);
	spawn("zoo-reuser", grandchild, area);
}

/* The first owner unmaps: a later fork may take its anon_vma instead of a new one. */
HOLD(reused, "zoo-anon-vma-reused", PHASE_STATE)
{
	char *area = map_anon(8 * PAGE), *whole = map_anon(8 * PAGE);
	touch(area, 8 * PAGE, 1);
	touch(whole, 8 * PAGE, 1);
	pid_t pid = fork();
	if (!pid) {
		name_process("zoo-reuse-mid");
		touch(area, PAGE, 2);
		touch(whole, PAGE, 2);
		if (!fork()) {
			name_process("zoo-reuse-low");
			nap(300);
			/* The middle is gone: its anon_vma has no VMA and one child. */
			give_up_then_fork(area);
			give_up_then_fork(whole);
			sleep_for_ever();
		}
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	munmap(area, 8 * PAGE);
	nap(900);
}

static void descend(char *area, int generation)
{
	touch(area + generation * PAGE, PAGE, generation);
	if (generation + 1 < GENERATIONS) {
		pid_t pid = fork();
		if (!pid) {
			name_process("zoo-generation");
			descend(area, generation + 1);
			/* Every third lives; the others leave anon_vmas that only their children use. */
			if (generation % 3)
				_exit(0);
			sleep_for_ever();
		}
	}
	nap(generation + 1 == GENERATIONS ? 0 : 50);
}

HOLD(generations, "zoo-deep-fork", PHASE_STATE)
{
	char *area = map_anon(AREA_PAGES * PAGE);
	touch(area, AREA_PAGES * PAGE, 1);
	descend(area, 0);
	nap(1500);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

/* Pages of a process that is gone: anonymous, mapped by nobody, of an anon_vma that was freed. */
HOLD(outlived, "zoo-pipe-outlives", PHASE_STATE)
{
	int ends[2];
	if (pipe(ends))
		fail("pipe");
	pid_t pid = fork();
	if (!pid) {
		char *area = map_anon(4 * PAGE), *thp = map_at_huge_boundary(HUGE_PAGE, 0);
		try_advise(thp, HUGE_PAGE, MADV_HUGEPAGE);
		touch(area, 4 * PAGE, 1);
		touch(thp, HUGE_PAGE, 1);
		struct iovec parts[] = { { area, 2 * PAGE }, { thp + 8 * PAGE, 2 * PAGE } };
		_exit(vmsplice(ends[1], parts, 2, 0) < 0);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	if (status)
		fail("vmsplice in the child");
}

static void merge(char *area)
{
	for (int i = 0; i < AREA_PAGES; i++)
		memset(area + i * PAGE, 0x70 + i % 3, PAGE);
	advise(area, AREA_PAGES * PAGE, MADV_MERGEABLE, "MADV_MERGEABLE");
}

/* Merged pages of processes that end when KSM sleeps: nodes without a page, anon_vmas that only KSM holds. */
HOLD(stale_nodes, "zoo-ksm-stale", PHASE_DAEMON)
{
	write_text(KSM "pages_to_scan", "2000");
	write_text(KSM "sleep_millisecs", "5");
	pid_t pids[3];
	for (int i = 0; i < 3; i++) {
		pids[i] = fork();
		if (!pids[i]) {
			char *area = map_anon(AREA_PAGES * PAGE);
			merge(area);
			memset(area, 0x60 + i / 2, PAGE);
			sleep_for_ever();
		}
	}
	char *area = map_anon(AREA_PAGES * PAGE);
	merge(area);
	long before = read_number(KSM "full_scans");
	if (!write_text(KSM "run", "1"))
		skip("no KSM");
	for (int i = 0; i < 200 && read_number(KSM "full_scans") < before + SCANS; i++)
		nap(50);
	write_text(KSM "run", "0");
	if (read_number(KSM "pages_shared") <= 0)
		fail("KSM merged nothing");
	/* Left and right of a fork: the child's entries lead to the parent's rmap_items. */
	spawn("zoo-ksm-kid", grandchild, area);
	for (int i = 0; i < 3; i++) {
		kill(pids[i], 9);
		waitpid(pids[i], NULL, 0);
	}
	munmap(area + 4 * PAGE, 4 * PAGE);
	touch(area + 12 * PAGE, 4 * PAGE, 9);
	note("pages_shared %ld pages_sharing %ld", read_number(KSM "pages_shared"), read_number(KSM "pages_sharing"));
}
