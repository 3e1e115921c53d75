/* Storms on whole address spaces: fork in three generations, execve with large arguments, exit with much mapped. */
#include "storm.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PRIVATE = 6 * 1024 * 1024 };

static char *mine;

static void own(void)
{
	if (mine)
		return;
	mine = map_huge_aligned(PRIVATE);
	if (!mine)
		_exit(1);
	madvise(mine, PRIVATE / 2, MADV_HUGEPAGE);
	dirty(mine, PRIVATE, 1);
	/* Many VMAs, each with pages of its own. */
	for (size_t at = PRIVATE / 2; at < PRIVATE; at += 32 * PAGE)
		mprotect(mine + at, 16 * PAGE, PROT_READ);
}

static void become_another(void)
{
	static char argument[64 * PAGE];
	memset(argument, 'a', sizeof(argument) - 1);
	char *const arguments[] = { "true", argument, argument, argument, NULL };
	execv(pick(3) ? "/bin/busybox" : "/no/such/program", arguments);
	_exit(0);
}

static void descend(int generations)
{
	dirty(mine, PRIVATE / 2, 1 + pick(7));
	for (int child = 0; generations && child < 2; child++)
		if (!fork()) {
			if (pick(3) == 0)
				munmap(mine + pick(256) * PAGE, (1 + pick(256)) * PAGE);
			descend(generations - 1);
			_exit(0);
		}
	if (pick(2))
		dirty(mine, PRIVATE / 2, 1);
	while (pick(4) && waitpid(-1, NULL, 0) > 0)
		;
}

static void forking(void)
{
	own();
	pid_t pid = fork();
	if (!pid) {
		descend(3);
		_exit(0);
	}
	dirty(mine, PRIVATE / 2, 3);
	waitpid(pid, NULL, 0);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static void executing(void)
{
	own();
	for (int child = 0; child < 4; child++) {
		pid_t pid = pick(3) ? fork() : vfork();
		if (!pid)
			become_another();
	}
	while (waitpid(-1, NULL, 0) > 0)
		;
}

const struct storm process_storms[] = {
	{ "storm-fork", NULL, forking, 3 },
	{ "storm-exec", NULL, executing, 4 },
	{ 0 },
};
