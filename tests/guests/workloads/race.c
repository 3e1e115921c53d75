/* Start all racers and let them run for ever. */
#define _GNU_SOURCE
#include "hold.h"
#include "race.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern const struct racer __start_racers[], __stop_racers[];

enum { TURNS_A_LIFE = 400 };

/* A racer lives for some turns, then dies with whatever it has mapped, and is born again. */
static pid_t start(const struct racer *racer, unsigned seed)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	srandom(seed);
	name_process(racer->name);
	for (int turn = 0; turn < TURNS_A_LIFE; turn++)
		racer->turn();
	_exit(0);
}

static void speed_up_daemons(void)
{
	static const char *const settings[][2] = {
		{ "/sys/kernel/mm/transparent_hugepage/enabled", "always" },
		{ "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "1" },
		{ "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "0" },
		{ "/sys/kernel/mm/transparent_hugepage/khugepaged/alloc_sleep_millisecs", "0" },
		{ "/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan", "4096" },
		{ "/sys/kernel/mm/transparent_hugepage/hugepages-16kB/enabled", "always" },
		{ "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled", "always" },
		{ "/sys/kernel/mm/transparent_hugepage/hugepages-256kB/enabled", "madvise" },
		{ "/sys/kernel/mm/ksm/sleep_millisecs", "0" },
		{ "/sys/kernel/mm/ksm/pages_to_scan", "500" },
		{ "/sys/kernel/mm/ksm/max_page_sharing", "4" },
		{ "/sys/kernel/mm/ksm/run", "1" },
		{ "/proc/sys/kernel/numa_balancing", "1" },
		{ "/proc/sys/vm/compaction_proactiveness", "90" },
		{ "/proc/sys/vm/nr_hugepages", "12" },
		{ "/proc/sys/vm/oom_kill_allocating_task", "1" },
		{ "/proc/sys/kernel/pid_max", "32768" },
	};
	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
		write_text(settings[i][0], settings[i][1]);
}

void race_for_ever(void)
{
	size_t nr_racers = __stop_racers - __start_racers;
	pid_t pids[2 * nr_racers];
	unsigned seed = getpid();
	speed_up_daemons();
	for (size_t i = 0; i < 2 * nr_racers; i++)
		pids[i] = start(__start_racers + i % nr_racers, seed++);
	printf("racing\n");
	for (;;) {
		pid_t ended = wait(NULL);
		for (size_t i = 0; i < 2 * nr_racers; i++)
			if (pids[i] == ended)
				pids[i] = start(__start_racers + i % nr_racers, seed++);
	}
}
