/* The first program after init.sh: starts one storm, by name, and keeps its processes alive. */
#include "storm.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TURNS_A_LIFE = 300, MOST = 64 };

unsigned long pick(unsigned long limit)
{
	return (unsigned long)random() % limit;
}

bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool whole = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return whole;
}

char *map_huge_aligned(size_t length)
{
	char *start = mmap(NULL, length + HUGE_PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return NULL;
	char *aligned = (char *)(((uintptr_t)start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
	if (aligned > start)
		munmap(start, aligned - start);
	size_t tail = start + HUGE_PAGE - aligned;
	if (tail)
		munmap(aligned + length, tail);
	return aligned;
}

void dirty(char *start, size_t length, unsigned long step)
{
	for (size_t at = 0; at < length; at += step * PAGE)
		((volatile char *)start)[at]++;
}

void look(const char *start, size_t length, unsigned long step)
{
	for (size_t at = 0; at < length; at += step * PAGE)
		(void)((const volatile char *)start)[at];
}

static const struct storm *named(const char *name)
{
	static const struct storm *const lists[] = { vma_storms, memory_storms, process_storms, group_storms };
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
		for (const struct storm *storm = lists[i]; storm->name; storm++)
			if (!strcmp(storm->name, name))
				return storm;
	return NULL;
}

static pid_t start(const struct storm *storm, unsigned seed)
{
	pid_t pid = fork();
	if (pid)
		return pid;
	srandom(seed);
	prctl(PR_SET_NAME, storm->name);
	for (int turn = 0; turn < TURNS_A_LIFE; turn++)
		storm->turn();
	_exit(0);
}

int main(int argc, char **argv)
{
	int console = open("/dev/console", O_RDWR | O_CLOEXEC);
	if (console >= 0) {
		dup2(console, STDOUT_FILENO);
		dup2(console, STDERR_FILENO);
	}
	setvbuf(stdout, NULL, _IONBF, 0);
	const struct storm *storm = argc > 1 ? named(argv[1]) : NULL;
	if (!storm) {
		printf("fail storm %s: not known\n", argc > 1 ? argv[1] : "without a name");
		for (;;)
			pause();
	}
	printf("step storm\n");
	write_text("/proc/sys/vm/oom_kill_allocating_task", "1");
	if (storm->prepare)
		storm->prepare();
	pid_t pids[MOST];
	long count = storm->per_cpu * sysconf(_SC_NPROCESSORS_ONLN);
	if (count > MOST)
		count = MOST;
	unsigned seed = 1;
	for (long i = 0; i < count; i++)
		pids[i] = start(storm, seed++);
	printf("racing\n");
	for (;;) {
		pid_t ended = wait(NULL);
		for (long i = 0; i < count; i++)
			if (pids[i] == ended)
				pids[i] = start(storm, seed++);
	}
}
