/* The only program of the large guest: fills most of memory with small pages, shares them by fork, and sleeps. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define CHILDREN 5

static void say(const char *text)
{
	int console = open("/dev/console", O_WRONLY);

	if (console >= 0)
		dprintf(console, "%s\n", text);
	close(console);
}

static void load(const char *path)
{
	int file = open(path, O_RDONLY);

	if (file < 0 || syscall(SYS_finit_module, file, "", 0))
		say("step load failed");
	close(file);
}

static void sleep_for_ever(void)
{
	for (;;)
		pause();
}

/* Touch pages in an order that jumps about, so that neighbours in the page table are none in memory. */
static void touch_scattered(char *start, size_t pages)
{
	size_t at = 0, step = 7919;

	for (size_t i = 0; i < pages; i++) {
		start[at * PAGE] = 1;
		at += step;
		while (at >= pages)
			at -= pages;
	}
}

int main(void)
{
	struct sysinfo info;
	size_t pages, half;
	char *memory;

	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	load("/qemu_fw_cfg.ko");
	sysinfo(&info);
	pages = info.totalram / PAGE / 10 * 8;
	half = pages / 2 | 1;
	memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		say("step mmap failed");
		return 1;
	}
	madvise(memory, pages * PAGE, MADV_NOHUGEPAGE);
	for (size_t i = half; i < pages; i++)
		memory[i * PAGE] = 1;
	touch_scattered(memory, half);
	for (int i = 0; i < CHILDREN; i++)
		if (fork() == 0)
			sleep_for_ever();
	say("populated");
	sleep_for_ever();
}
