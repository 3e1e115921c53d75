/* The only program of the guests of scale: many children of one parent, or one process with very many VMAs. */
#include "guest.h"

#define AREAS 12
#define AREA_PAGES 4

/* Each child writes one page of each area: its VMAs have an anon_vma of their own and hang on the parent's as well. */
static void fork_many(long children)
{
	char *areas[AREAS], *shared = map(8, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int ready[2];
	char byte;

	for (int i = 0; i < AREAS; i++) {
		/* Read-only pages between them keep the areas apart. */
		areas[i] = map(AREA_PAGES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		map(1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(areas[i], 1 + i, AREA_PAGES * PAGE);
	}
	memset(shared, 1, 8 * PAGE);
	if (pipe(ready))
		stop("step pipe failed");
	for (long n = 0; n < children; n++) {
		pid_t pid = fork();

		if (pid < 0)
			stop("step fork failed");
		if (!pid) {
			for (int i = 0; i < AREAS; i++)
				areas[i][0] = 2;
			for (int i = 0; i < 8; i++)
				(void)*(volatile char *)(shared + i * PAGE);
			if (write(ready[1], "r", 1) != 1)
				_exit(1);
			for (;;)
				pause();
		}
		if (read(ready[0], &byte, 1) != 1)
			stop("step a child failed");
	}
}

/* Every second page loses the right to be written: as many VMAs as pages, all on one anon_vma; a child shares all. */
static void split_many(long vmas)
{
	char *area = map(vmas, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	madvise(area, vmas * PAGE, MADV_NOHUGEPAGE);
	for (long i = 0; i < vmas; i++)
		area[i * PAGE] = 1;
	for (long i = 0; i < vmas; i += 2)
		if (mprotect(area + i * PAGE, PAGE, PROT_READ))
			stop("step mprotect failed");
	if (!fork())
		for (;;)
			pause();
}

int main(int argc, char **argv)
{
	mkdir("/dev", 0755);
	mkdir("/proc", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	mount("proc", "/proc", "proc", 0, "");
	load("/qemu_fw_cfg.ko");
	set("/proc/sys/vm/max_map_count", "1000000");
	set("/proc/sys/kernel/threads-max", "30000");
	set("/proc/sys/kernel/pid_max", "32768");
	if (argc < 3)
		stop("step no arguments");
	if (!strcmp(argv[1], "forks"))
		fork_many(atol(argv[2]));
	else
		split_many(atol(argv[2]));
	sleep(3);
	stop("populated");
}
