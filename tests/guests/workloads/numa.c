/* NUMA hint entries: present for the kernel, absent for the processor. */
#define _GNU_SOURCE
#include "hold.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BALANCING "/proc/sys/kernel/numa_balancing"

static long hint_updates(void)
{
	char line[128];
	long value = -1;
	FILE *vmstat = fopen("/proc/vmstat", "re");
	if (!vmstat)
		return -1;
	while (fgets(line, sizeof(line), vmstat))
		if (sscanf(line, "numa_pte_updates %ld", &value) == 1)
			break;
	fclose(vmstat);
	return value;
}

/* The scanner runs in the task's own tick: it must burn processor time to be visited. */
static void burn(unsigned milliseconds)
{
	struct timespec now, start;
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		for (volatile int i = 0; i < 100000; i++)
			;
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < milliseconds);
}

static void *sleep_in_thread(void *unused)
{
	(void)unused;
	sleep_for_ever();
}

HOLD(hinted, "numa-hint", PHASE_DAEMON)
{
	if (access("/sys/devices/system/node/node1", F_OK))
		skip("one NUMA node only");
	char *area = map_anon(16 * PAGE);
	char *thp = map_thp(HUGE_PAGE);
	touch(area, 16 * PAGE, 1);
	/* Pages on the node of a process with one thread are left alone. */
	pthread_t sleeper;
	if (pthread_create(&sleeper, NULL, sleep_in_thread, NULL))
		fail("pthread_create");
	if (!write_text(BALANCING, "1"))
		skip("no NUMA balancing");
	long before = hint_updates(), now = before;
	for (int turn = 0; turn < 60 && now < before + 16 + 1; turn++) {
		burn(200);
		now = hint_updates();
	}
	write_text(BALANCING, "0");
	if (now <= before)
		skip("NUMA balancing changed no entry");
	note("numa_pte_updates %ld, thp at %p", now - before, (void *)thp);
}
