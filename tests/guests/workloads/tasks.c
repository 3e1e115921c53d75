/* Processes caught half-way: in exec, in a core dump, without a leader, in vfork, sharing an mm. */
#define _GNU_SOURCE
#include "hold.h"
#include "uffd.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STACK = 64 * 1024 };

/* True when the line of /proc/PID/status that starts with key has value somewhere behind it. */
static bool has_status(pid_t pid, const char *key, const char *value)
{
	char path[64], line[256];
	bool is_found = false;
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	FILE *status = fopen(path, "re");
	if (!status)
		return false;
	while (fgets(line, sizeof(line), status))
		if (!strncmp(line, key, strlen(key)) && strstr(line + strlen(key), value))
			is_found = true;
	fclose(status);
	return is_found;
}

static void await_status(pid_t pid, const char *key, const char *value)
{
	for (int attempt = 0; attempt < 100; attempt++) {
		if (has_status(pid, key, value))
			return;
		nap(50);
	}
	fail("process %d never showed %s %s", pid, key, value);
}

static void *sleep_in_thread(void *unused)
{
	(void)unused;
	sleep_for_ever();
}

static void start_thread(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, sleep_in_thread, NULL))
		fail("pthread_create");
}

/* A crash whose core goes to a pipe that nobody reads: the process stays in the middle of its end. */
HOLD(dumping, "exit-blocked", PHASE_TASK)
{
	char *area = map_anon(64 * PAGE);
	touch(area, 64 * PAGE, 1);
	pid_t pid = fork();
	if (!pid) {
		name_process("dumping");
		start_thread();
		touch(area, 8 * PAGE, 3);
		raise(SIGSEGV);
		sleep_for_ever();
	}
	await_status(pid, "CoreDumping:", "1");
	nap(300);
}

/* The registration is not inherited by fork, so the process that will call execve makes its own. */
static void block_in_exec(void *unused)
{
	(void)unused;
	int fd = open_uffd(0, "userfaultfd");
	char *area = map_anon(2 * PAGE);
	register_range(fd, area, 2 * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	/* Strings are copied from the last to the first: one arrives, the next one never does. */
	char *arguments[] = { "sh", area, "an argument that is copied", NULL };
	execve("/bin/busybox", arguments, (char *[]){ NULL });
	_exit(4);
}

HOLD(in_exec, "exec-blocked", PHASE_TASK)
{
	pid_t pid = fork();
	if (!pid) {
		name_process("in-exec");
		block_in_exec(NULL);
	}
	nap(500);
	if (!has_status(pid, "State:", "S") && !has_status(pid, "State:", "D"))
		fail("execve did not block");
}

/* The first thread is gone, the others keep the mm. */
HOLD(leaderless, "zombie-leader", PHASE_TASK)
{
	pid_t pid = fork();
	if (!pid) {
		name_process("leaderless");
		start_thread();
		touch(map_anon(4 * PAGE), 4 * PAGE, 1);
		syscall(SYS_exit, 0);
	}
	await_status(pid, "State:", "Z");
}

HOLD(zombie, "zombie", PHASE_TASK)
{
	pid_t pid = fork();
	if (!pid)
		_exit(0);
	await_status(pid, "State:", "Z");
}

static int share_the_mm(void *area)
{
	name_process("mm-sharer");
	touch(area, 2 * PAGE, 3);
	sleep_for_ever();
}

/* Two processes, not threads of one another, with one mm. */
HOLD(shared_mm, "shared-mm", PHASE_TASK)
{
	char *area = map_anon(4 * PAGE), *stack = map_anon(STACK);
	touch(area, 4 * PAGE, 1);
	if (clone(share_the_mm, stack + STACK, CLONE_VM | SIGCHLD, area) < 0)
		fail("clone");
	nap(50);
}

/* A parent that waits in vfork for a child that sleeps in its mm. */
HOLD(vforked, "vfork-parent", PHASE_TASK)
{
	pid_t pid = fork();
	if (!pid) {
		name_process("vfork-parent");
		touch(map_anon(4 * PAGE), 4 * PAGE, 1);
		if (!vfork())
			sleep_for_ever();
		_exit(4);
	}
	await_status(pid, "State:", "D");
}

/* A debugger changed one word of the text: an anonymous page in a mapping that nobody may write. */
HOLD(poked, "text-poked", PHASE_TASK)
{
	pid_t pid = fork();
	if (!pid) {
		name_process("poked");
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		sleep_for_ever();
	}
	if (waitpid(pid, NULL, 0) != pid)
		fail("waitpid");
	void *place = (void *)&sleep_in_thread;
	long word = ptrace(PTRACE_PEEKTEXT, pid, place, NULL);
	if (ptrace(PTRACE_POKETEXT, pid, place, (void *)word))
		fail("PTRACE_POKETEXT");
	ptrace(PTRACE_DETACH, pid, NULL, NULL);
}
