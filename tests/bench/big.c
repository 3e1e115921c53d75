/*
 * The only program of the big guest: some two thousand address spaces that fill most of memory in every common way.
 *
 * Shares of memory, in hundredths: families (small anonymous pages of a parent, shared by fork and copied in part), THP
 * and mTHP the same way, files of tmpfs mapped by many processes, memory of one process alone, and many small processes
 * like daemons, each with its libraries. Some pages are swapped out to zram, before and after they are shared.
 * Arguments: the number of address spaces.
 */
#include "guest.h"

#define FAMILY_SHARE 34
#define FAMILIES 40
#define FAMILY_CHILDREN 9
#define COPIED_EVERY 100
#define THP_SHARE 10
#define MTHP_SHARE 8
#define HUGE_PARENTS 8
#define HUGE_CHILDREN 5
#define FILE_SHARE 14
#define FILES 16
#define FILE_SHARERS 40
#define ALONE_SHARE 6
#define ALONE 100
#define SWAPPED_SHARE 1
#define LIBRARIES 12
#define LIBRARY_PAGES 48

static size_t total_pages;
static int ready[2];
static int files[FILES], libraries[LIBRARIES];

static size_t hundredths(int share)
{
	return total_pages / 100 * share;
}

static size_t file_pages(void)
{
	return hundredths(FILE_SHARE) / FILES;
}

static void done(void)
{
	if (write(ready[1], "r", 1) != 1)
		_exit(1);
	sleep_for_ever();
}

/* Wait until that many processes have done what they are for; one that died would be waited for in vain. */
static void wait_for(int processes)
{
	char byte;

	while (processes--)
		if (read(ready[0], &byte, 1) != 1)
			stop("step a process failed");
}

static pid_t forked(void)
{
	pid_t pid = fork();

	if (pid < 0)
		stop("step fork failed");
	return pid;
}

static char *anon(size_t pages, int advice)
{
	char *area = map(pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	madvise(area, pages * PAGE, advice);
	return area;
}

static void touch(char *area, size_t pages, size_t step)
{
	for (size_t i = 0; i < pages; i += step)
		area[i * PAGE] = 1;
}

/* A parent's pages, its children who share them, and what each child has copied. */
static void family(size_t pages, int advice, int children, size_t copied_every)
{
	char *area = anon(pages, advice);

	touch_scattered(area, pages);
	for (int child = 0; child < children; child++)
		if (!forked()) {
			touch(area + (child + 1) * PAGE, pages - child - 1, copied_every);
			done();
		}
	done();
}

/* Some pages go to swap; half of the children read a part of them back. */
static void swapped(size_t pages, int children)
{
	char *area = anon(pages, MADV_NOHUGEPAGE);

	for (size_t i = 0; i < pages; i++)
		memset(area + i * PAGE, 1 + i % 250, 64);
	if (madvise(area, pages * PAGE, MADV_PAGEOUT))
		say("step pageout failed");
	for (int child = 0; child < children; child++)
		if (!forked()) {
			if (child % 2)
				for (size_t i = 0; i < pages / 8; i++)
					(void)*(volatile char *)(area + i * PAGE);
			done();
		}
	done();
}

/* Every sharer sees every page of one file, but for a hole of its own. */
static void sharer(int number)
{
	size_t pages = file_pages();
	char *area = map(pages, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, files[number % FILES], 0);

	munmap(area + (number % 64) * PAGE, PAGE);
	done();
}

/* As daemons are: text and data of some libraries, a heap, a private page here and there. */
static void daemon_like(int number)
{
	for (int i = 0; i < LIBRARIES; i++) {
		int file = libraries[i];
		char *data;

		map(LIBRARY_PAGES / 2, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_POPULATE, file, 0);
		map(LIBRARY_PAGES / 4, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, LIBRARY_PAGES / 2);
		data = map(LIBRARY_PAGES / 4, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, LIBRARY_PAGES / 4 * 3);
		touch(data, LIBRARY_PAGES / 4, 6);
	}
	touch(anon(40, MADV_NOHUGEPAGE), 20 + number % 20, 1);
	done();
}

/* All files grow together, so that no file's pages lie side by side. */
static void fill_files(void)
{
	char *areas[FILES];

	for (int i = 0; i < FILES; i++)
		areas[i] = map(file_pages(), PROT_READ | PROT_WRITE, MAP_SHARED, files[i], 0);
	for (size_t page = 0; page < file_pages(); page++)
		for (int i = 0; i < FILES; i++)
			areas[i][page * PAGE] = 1;
	for (int i = 0; i < FILES; i++)
		munmap(areas[i], file_pages() * PAGE);
}

static int new_file(const char *folder, int number, size_t pages)
{
	char path[64];
	int file;

	snprintf(path, sizeof(path), "%s/%d", folder, number);
	file = open(path, O_RDWR | O_CREAT, 0755);
	if (file < 0 || ftruncate(file, pages * PAGE))
		stop("step a file could not be made");
	return file;
}

static void use_zram(size_t pages)
{
	static char header[PAGE];
	char text[32];
	uint32_t words[] = {1, pages - 1, 0};
	int device;

	snprintf(text, sizeof(text), "%zu", pages * PAGE);
	set("/sys/block/zram0/disksize", text);
	memcpy(header + 1024, words, sizeof(words));
	memcpy(header + PAGE - 10, "SWAPSPACE2", 10);
	device = open("/dev/zram0", O_RDWR);
	if (device < 0 || write(device, header, PAGE) != (ssize_t)PAGE || fsync(device))
		say("step zram could not be written");
	close(device);
	if (swapon("/dev/zram0", 0))
		say("step swapon failed");
}

static void load_all(void)
{
	FILE *order = fopen("/order", "r");
	char path[128];

	while (order && fscanf(order, "%127s", path) == 1)
		load(path);
	if (order)
		fclose(order);
}

int main(int argc, char **argv)
{
	int wanted = argc > 1 ? atoi(argv[1]) : 2000, made = 0;
	struct sysinfo info;

	for (const char *const *name = (const char *const[]){"/dev", "/proc", "/sys", "/files", NULL}; *name; name++)
		mkdir(*name, 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	mount("proc", "/proc", "proc", 0, "");
	mount("sysfs", "/sys", "sysfs", 0, "");
	mount("tmpfs", "/files", "tmpfs", 0, "size=60%");
	load_all();
	set("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
	sysinfo(&info);
	total_pages = info.totalram / PAGE;
	use_zram(hundredths(2 * SWAPPED_SHARE));
	if (pipe(ready))
		stop("step pipe failed");
	for (int i = 0; i < LIBRARIES; i++)
		libraries[i] = new_file("/files", 1000 + i, LIBRARY_PAGES);
	for (int i = 0; i < FILES; i++)
		files[i] = new_file("/files", i, file_pages());

	for (int i = 0; i < HUGE_PARENTS; i++) {
		if (!forked())
			family(hundredths(THP_SHARE) / HUGE_PARENTS, MADV_HUGEPAGE, HUGE_CHILDREN, 512 * 16);
		made += 1 + HUGE_CHILDREN;
	}
	wait_for(made);
	say("step huge pages are there");
	/* From here on folios of 64 kB, and none of 2 MB. */
	set("/sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled", "never");
	set("/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled", "madvise");
	for (int i = 0; i < HUGE_PARENTS; i++)
		if (!forked())
			family(hundredths(MTHP_SHARE) / HUGE_PARENTS, MADV_HUGEPAGE, HUGE_CHILDREN, 16 * 12);
	wait_for(HUGE_PARENTS * (1 + HUGE_CHILDREN));
	made += HUGE_PARENTS * (1 + HUGE_CHILDREN);
	say("step folios of 64 kB are there");
	if (!forked())
		swapped(hundredths(SWAPPED_SHARE), HUGE_CHILDREN);
	wait_for(1 + HUGE_CHILDREN);
	made += 1 + HUGE_CHILDREN;
	say("step swapped");
	for (int i = 0; i < FAMILIES; i++, made += 1 + FAMILY_CHILDREN) {
		if (!forked())
			family(hundredths(FAMILY_SHARE) / FAMILIES, MADV_NOHUGEPAGE, FAMILY_CHILDREN, COPIED_EVERY);
		if (i % 4 == 3)
			wait_for(4 * (1 + FAMILY_CHILDREN));
	}
	say("step families are there");
	fill_files();
	for (int i = 0; i < FILES * FILE_SHARERS; i++, made++) {
		if (!forked())
			sharer(i);
		if (i % 64 == 63)
			wait_for(64);
	}
	say("step files are mapped");
	for (int i = 0; i < ALONE; i++, made++) {
		if (!forked())
			family(hundredths(ALONE_SHARE) / ALONE, MADV_NOHUGEPAGE, 0, 1);
		wait_for(1);
	}
	say("step alone");
	for (; made < wanted; made++) {
		if (!forked())
			daemon_like(made);
		wait_for(1);
	}
	sleep(3);
	say("populated");
	sleep_for_ever();
}
