/* LRU lists of two nodes and of cgroups, one of them dying; the multi-gen LRU switched while folios are on its lists. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#define LRU_GEN "/sys/kernel/mm/lru_gen/enabled"

static void on_node(int node)
{
	unsigned long mask = 1UL << node;
	if (syscall(SYS_set_mempolicy, MPOL_BIND, &mask, 8 * sizeof(mask)))
		skip("set_mempolicy: errno %d", errno);
}

static void fill(const char *path, int node)
{
	on_node(node);
	/* One half of a huge folio is given back: it waits to be split. */
	char *thp = map_thp(HUGE_PAGE);
	touch(thp, HUGE_PAGE, 1);
	munmap(thp + HUGE_PAGE / 2, HUGE_PAGE / 2);
	touch(map_anon(48 * PAGE), 48 * PAGE, node + 1);
	int fd = open_or_fail(path, O_RDWR | O_CREAT);
	if (ftruncate(fd, 24 * PAGE))
		fail("ftruncate");
	touch(map_file(fd, 24 * PAGE, MAP_SHARED), 24 * PAGE, node + 3);
	char *locked = map_anon(6 * PAGE);
	touch(locked, 6 * PAGE, 5);
	if (mlock(locked, 6 * PAGE))
		fail("mlock");
}

HOLD(first_node, "numa-node-0", PHASE_STATE)
{
	fill("/mnt/disk/node0", 0);
}

HOLD(second_node, "numa-node-1", PHASE_STATE)
{
	fill("/mnt/tmp/node1", 1);
}

/* Charged to a cgroup that was removed, on both nodes; some of it locked by a process of another cgroup. */
HOLD(dying, "numa-memcg-dying", PHASE_STATE)
{
	if (mkdir("/cgroup/gone", 0755))
		skip("no cgroup: errno %d", errno);
	pid_t pid = fork();
	if (!pid) {
		int fd = open_or_fail("/mnt/tmp/gone", O_RDWR | O_CREAT);
		if (!write_text("/cgroup/gone/cgroup.procs", "0") || ftruncate(fd, 40 * PAGE))
			_exit(1);
		char *area = map_file(fd, 40 * PAGE, MAP_SHARED);
		on_node(0);
		touch(area, 20 * PAGE, 1);
		on_node(1);
		touch(area + 20 * PAGE, 20 * PAGE, 1);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	if (rmdir("/cgroup/gone"))
		fail("rmdir of a cgroup");
	int fd = open_or_fail("/mnt/tmp/gone", O_RDWR);
	char *area = map_file(fd, 40 * PAGE, MAP_SHARED);
	look(area, 30 * PAGE);
	if (mlock(area, 4 * PAGE))
		fail("mlock");
}

/* 6.x: the other kind of LRU from now on. Folios that were on no list meanwhile keep what they were marked with. */
HOLD(switched, "numa-lru-switched", PHASE_RECLAIM)
{
	struct utsname name;
	char text[16] = "";
	int fd = open(LRU_GEN, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		skip("no multi-gen LRU: errno %d", errno);
	close(fd);
	uname(&name);
	if (strncmp(name.release, "6.", 2))
		skip("left as it is");
	if (!write_text(LRU_GEN, strtol(text, NULL, 16) ? "n" : "y"))
		fail(LRU_GEN);
	touch(map_anon(32 * PAGE), 32 * PAGE, 7);
	note("lru_gen was %.6s", text);
}
