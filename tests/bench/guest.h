/* What the only program of a guest needs before all else: words on the console, modules, endless sleep. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define UNUSED __attribute__((unused))

static UNUSED void say(const char *text)
{
	int console = open("/dev/console", O_WRONLY);

	if (console >= 0)
		dprintf(console, "%s\n", text);
	close(console);
}

static UNUSED void sleep_for_ever(void)
{
	for (;;)
		pause();
}

static UNUSED void stop(const char *text)
{
	say(text);
	sleep_for_ever();
}

static UNUSED void load(const char *path)
{
	int file = open(path, O_RDONLY);

	if (file < 0 || (syscall(SYS_finit_module, file, "", 0) && errno != EEXIST))
		say("step load failed");
	close(file);
}

static UNUSED void set(const char *path, const char *value)
{
	int file = open(path, O_WRONLY);

	if (file < 0 || write(file, value, strlen(value)) != (ssize_t)strlen(value))
		say("step a setting could not be made");
	close(file);
}

static UNUSED char *map(size_t pages, int protection, int flags, int file, size_t first)
{
	char *area = mmap(NULL, pages * PAGE, protection, flags, file, first * PAGE);

	if (area == MAP_FAILED)
		stop("step mmap failed");
	return area;
}

/* Touch pages in an order that jumps about, so that neighbours in the page table are none in memory. */
static UNUSED void touch_scattered(char *start, size_t pages)
{
	size_t at = 0, step = pages % 7919 ? 7919 : 7907;

	for (size_t i = 0; i < pages; i++) {
		start[at * PAGE] = 1;
		at += step;
		while (at >= pages)
			at -= pages;
	}
}
