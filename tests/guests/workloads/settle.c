/* Bring the guest to rest: daemons stopped, dirty pages written, counters folded. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define THP "/sys/kernel/mm/transparent_hugepage/"

/* khugepaged makes one pass when it first finds work, then sleeps for its (very long) interval: let that be now. */
void wake_daemons_once(void)
{
	char *bait = map_at_huge_boundary(HUGE_PAGE, 0);
	try_advise(bait, HUGE_PAGE, MADV_HUGEPAGE);
	/* Only this process keeps it, as a reason for khugepaged to stay asleep. */
	try_advise(bait, HUGE_PAGE, MADV_DONTFORK);
	touch(bait, PAGE, 1);
	nap(500);
	write_text("/proc/sys/kernel/core_pattern", "|/bin/keeper core-sink");
	write_text("/cgroup/cgroup.subtree_control", "+memory");
	mkdirat(AT_FDCWD, "/cgroup/even", 0755);
	mkdirat(AT_FDCWD, "/cgroup/odd", 0755);
}

/* Spread the workloads over two memory cgroups. */
void join_group(long number)
{
	write_text(number % 2 ? "/cgroup/odd/cgroup.procs" : "/cgroup/even/cgroup.procs", "0");
}

void settle(void)
{
	write_text("/sys/kernel/mm/ksm/run", "0");
	write_text("/proc/sys/kernel/numa_balancing", "0");
	sync();
	nap(1500);
	printf("note settle: khugepaged collapsed %ld folios in %ld passes\n",
	       read_number(THP "khugepaged/pages_collapsed"), read_number(THP "khugepaged/full_scans"));
	sync();
	write_text("/proc/sys/vm/stat_refresh", "1");
}
