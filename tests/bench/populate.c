/* The only program of the large guest: fills most of memory with small pages, shares them by fork, and sleeps. */
#include "guest.h"

#define CHILDREN 5

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
