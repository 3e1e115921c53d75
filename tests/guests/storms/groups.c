/* A storm on memory cgroups: made in two levels, charged, left with what was charged, reclaimed, killed and removed. */
#include "storm.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { GROUPS = 4, LENGTH = 6 << 20 };

static void enable_memory(void)
{
	write_text("/sys/kernel/mm/transparent_hugepage/enabled", "always");
	if (!write_text("/cgroup/cgroup.subtree_control", "+memory"))
		printf("note storm-groups: no memory controller\n");
}

static bool tell(const char *group, const char *file, const char *text)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", group, file);
	return write_text(path, text);
}

/* A group below one of a few, which others make and remove too. */
static void choose(char *group, size_t size)
{
	char outer[64];
	snprintf(outer, sizeof(outer), "/cgroup/outer-%lu", pick(GROUPS));
	mkdir(outer, 0755);
	tell(outer, "cgroup.subtree_control", "+memory");
	snprintf(group, size, "%s/inner-%lu", outer, pick(GROUPS));
	mkdir(group, 0755);
}

static void use_kernel_memory(void)
{
	int pipes[8][2], made = 0, ends[2];
	static char text[16 * PAGE];
	while (made < 8 && !pipe2(pipes[made], O_CLOEXEC | O_NONBLOCK)) {
		if (write(pipes[made][1], text, pick(sizeof(text))) < 0)
			text[0]++;
		made++;
	}
	if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends)) {
		if (write(ends[0], text, sizeof(text)) < 0)
			text[0]++;
		close(ends[0]);
		close(ends[1]);
	}
	for (int i = 0; i < made; i++)
		close(pipes[i][0]), close(pipes[i][1]);
}

/* Pages of a file on tmpfs stay charged to the group of the process that made them. */
static void use_files(void)
{
	char path[64];
	snprintf(path, sizeof(path), "%s/groups-%lu", pick(2) ? "/mnt/tmp" : "/mnt/huge", pick(6));
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, LENGTH / 2)) {
		close(fd);
		return;
	}
	char *start = mmap(NULL, LENGTH / 2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (start != MAP_FAILED) {
		dirty(start, LENGTH / 2, 1 + pick(4));
		munmap(start, LENGTH / 2);
	}
	close(fd);
	if (!pick(3))
		unlink(path);
}

static void work_in(const char *group)
{
	char other[96];
	char *start = map_huge_aligned(LENGTH);
	if (!start)
		return;
	dirty(start, LENGTH / 2, 1);
	use_kernel_memory();
	use_files();
	if (pick(2))
		tell(group, "memory.reclaim", "3M");
	/* It moves on; what it has stays charged to where it was. */
	choose(other, sizeof(other));
	if (!tell(other, "cgroup.procs", "0"))
		tell("/cgroup", "cgroup.procs", "0");
	dirty(start, LENGTH, 2);
	tell(other, "memory.high", pick(2) ? "8M" : "max");
	if (!pick(4))
		tell(other, "memory.max", pick(2) ? "5M" : "max");
	look(start, LENGTH, 1);
	if (!pick(3))
		madvise(start, LENGTH / 2, pick(2) ? MADV_PAGEOUT : MADV_DONTNEED);
	munmap(start, LENGTH);
}

static void grouping(void)
{
	char group[96], outer[96];
	choose(group, sizeof(group));
	pid_t children[3];
	for (int i = 0; i < 3; i++) {
		children[i] = fork();
		if (!children[i]) {
			srandom((unsigned)getpid());
			tell(group, "cgroup.procs", "0");
			for (int turn = 0; turn < 4; turn++)
				work_in(group);
			_exit(0);
		}
	}
	if (pick(2))
		usleep((useconds_t)pick(200000));
	if (!pick(2))
		tell(group, "cgroup.kill", "1");
	else if (!pick(3))
		kill(children[0], SIGKILL);
	for (int i = 0; i < 3; i++)
		if (children[i] > 0)
			waitpid(children[i], NULL, 0);
	rmdir(group);
	snprintf(outer, sizeof(outer), "/cgroup/outer-%lu", pick(GROUPS));
	if (!pick(3)) {
		tell(outer, "cgroup.kill", "1");
		rmdir(outer);
	}
}

const struct storm group_storms[] = {
	{ "storm-groups", enable_memory, grouping, 4 },
	{ 0 },
};
