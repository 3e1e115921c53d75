/* The machine itself: hugetlb with reservations and surplus, dead memory cgroups, a block of memory taken offline. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define POOL "/proc/sys/vm/nr_"

static void stay(void *area)
{
	(void)area;
}

/* More folios than the pool was given, some reserved and never touched, one punched out of its file. */
HOLD(huge_pool, "zoo-hugetlb-pool", PHASE_STATE)
{
	if (!write_text(POOL "hugepages", "8") || !write_text(POOL "overcommit_hugepages", "6"))
		skip("no hugetlb: errno %d", errno);
	int fd = open_or_fail("/mnt/hugetlb/zoo", O_RDWR | O_CREAT);
	if (ftruncate(fd, 6 * HUGE_PAGE))
		fail("ftruncate");
	char *shared = mmap(NULL, 6 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	char *private = mmap(NULL, 3 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (shared == MAP_FAILED || private == MAP_FAILED)
		skip("not enough hugetlb folios: errno %d", errno);
	for (int i = 0; i < 4; i++)
		shared[i * HUGE_PAGE] = i;
	private[HUGE_PAGE] = 7;
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * HUGE_PAGE, HUGE_PAGE))
		fail("fallocate");
	close(fd);
	/* A child owns no reservation of a private mapping. */
	spawn("zoo-huge-kid", stay, private);
	/* What is in use stays when the pool shrinks: surplus. */
	write_text(POOL "hugepages", "2");
	note("hugepages %ld", read_number(POOL "hugepages"));
}

/* Pages charged to a cgroup that was removed. */
HOLD(dead_cgroup, "zoo-memcg-dead", PHASE_STATE)
{
	if (mkdir("/cgroup/zoo", 0755))
		skip("no cgroup: errno %d", errno);
	pid_t pid = fork();
	if (!pid) {
		int fd = open_or_fail("/mnt/tmp/charged", O_RDWR | O_CREAT);
		if (!write_text("/cgroup/zoo/cgroup.procs", "0") || ftruncate(fd, 32 * PAGE))
			_exit(1);
		touch(map_file(fd, 32 * PAGE, MAP_SHARED), 32 * PAGE, 1);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	if (rmdir("/cgroup/zoo"))
		fail("rmdir of a cgroup");
	int fd = open_or_fail("/mnt/tmp/charged", O_RDWR);
	char *area = map_file(fd, 32 * PAGE, MAP_SHARED);
	look(area, 16 * PAGE);
	mlock(area, 4 * PAGE);
	close(fd);
}

/* The last block of memory that can go: its struct pages stay, its pages belong to nobody. */
HOLD(offline, "zoo-memory-offline", PHASE_STATE)
{
	char path[80];
	/* Pages that other workloads have in hand keep a block for a moment. */
	for (int turn = 0; turn < 8 * 63; turn++) {
		int block = 63 - turn % 63;
		if (turn && block == 63)
			sleep(1);
		snprintf(path, sizeof(path), "/sys/devices/system/memory/memory%d/state", block);
		if (write_text(path, "offline")) {
			note("memory block %d is offline", block);
			return;
		}
	}
	skip("no block of memory could be taken offline");
}

/* A word of text with a probe on it: an anonymous page in every process that runs the file. */
HOLD(probed, "zoo-uprobe", PHASE_STATE)
{
	char text[128];
	mount("trace", "/sys/kernel/tracing", "tracefs", 0, NULL);
	int fd = open("/sys/kernel/tracing/uprobe_events", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		skip("no uprobes: errno %d", errno);
	int length = snprintf(text, sizeof(text), "p:zoo /bin/busybox:0x1000\n");
	if (write(fd, text, length) != length)
		skip("uprobe_events: errno %d", errno);
	write_text("/sys/kernel/tracing/events/uprobes/zoo/enable", "1");
	close(fd);
	if (!fork()) {
		execl("/bin/busybox", "sleep", "1000000", NULL);
		_exit(4);
	}
	nap(300);
}
