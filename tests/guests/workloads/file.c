/* Files on a disk: shared by many, copied on write, and read into large folios. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_PAGES = 32, SHARERS = 5 };

static const char *disk(void)
{
	static const char path[] = "/mnt/disk";
	struct stat mounted, above;
	if (stat(path, &mounted) || stat("/mnt", &above) || mounted.st_dev == above.st_dev)
		skip("no disk file system mounted");
	return path;
}

static void fill(const char *path, size_t pages)
{
	char page[PAGE];
	int fd = open_or_fail(path, O_RDWR | O_CREAT | O_TRUNC);
	for (size_t i = 0; i < pages; i++) {
		for (size_t at = 0; at < PAGE; at++)
			page[at] = i + at;
		if (write(fd, page, PAGE) != (ssize_t)PAGE)
			fail("write %s", path);
	}
	if (fsync(fd))
		fail("fsync %s", path);
	close(fd);
}

static void share(void *argument)
{
	int fd = open_or_fail(argument, O_RDWR);
	look(map_file(fd, FILE_PAGES * PAGE, MAP_SHARED), FILE_PAGES * PAGE);
	close(fd);
}

HOLD(shared_file, "file-shared", PHASE_STATE)
{
	static char path[] = "/mnt/disk/shared";
	disk();
	fill(path, FILE_PAGES);
	for (int i = 0; i < SHARERS; i++)
		spawn("file-sharer", share, path);
	share(path);
}

static void copy_odd_pages(void *argument)
{
	char *area = argument;
	for (int i = 1; i < FILE_PAGES; i += 2)
		touch(area + i * PAGE, PAGE, 1);
}

/* A private mapping: read, some pages copied, then forked and more copied; one child's neighbour shares the file. */
HOLD(private_file, "file-private-cow", PHASE_STATE)
{
	static char path[] = "/mnt/disk/private";
	disk();
	fill(path, FILE_PAGES);
	int fd = open_or_fail(path, O_RDWR);
	char *area = map_file(fd, FILE_PAGES * PAGE, MAP_PRIVATE);
	look(area, FILE_PAGES * PAGE);
	touch(area + 4 * PAGE, 8 * PAGE, 1);
	spawn("cow-child", copy_odd_pages, area);
	char *tail = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 16 * PAGE);
	if (tail == MAP_FAILED)
		fail("mmap of the tail");
	touch(tail, 4 * PAGE, 1);
	close(fd);
}

/* The pages leave the cache, so that reading them back can choose larger folios. */
static void forget(int fd)
{
	if (posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED))
		fail("POSIX_FADV_DONTNEED");
}

static bool is_large(const void *address)
{
	enum { KPF_COMPOUND_HEAD = 15, KPF_COMPOUND_TAIL = 16 };
	return page_flags(address) >> KPF_COMPOUND_HEAD & 3;
}

static void map_a_window(void *path)
{
	int fd = open_or_fail(path, O_RDWR);
	char *area = mmap(NULL, 20 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 6 * PAGE);
	if (area == MAP_FAILED)
		fail("mmap of a window");
	look(area, 20 * PAGE);
	close(fd);
}

/* Read ahead into large folios; one process maps them all, one a window over their edges, one copies a page. */
HOLD(large_folios, "file-large", PHASE_STATE)
{
	enum { LARGE_FILE_PAGES = 256 };
	static char path[] = "/mnt/disk/large";
	static char buffer[64 * KIB];
	size_t nr_large = 0;
	disk();
	fill(path, LARGE_FILE_PAGES);
	int fd = open_or_fail(path, O_RDWR);
	forget(fd);
	while (read(fd, buffer, sizeof(buffer)) > 0)
		;
	char *area = map_file(fd, LARGE_FILE_PAGES * PAGE, MAP_SHARED);
	look(area, LARGE_FILE_PAGES * PAGE);
	for (size_t i = 0; i < LARGE_FILE_PAGES; i++)
		nr_large += is_large(area + i * PAGE);
	if (!nr_large)
		skip("reading gave no large folio");
	note("%zu of %d pages in large folios", nr_large, LARGE_FILE_PAGES);
	spawn("large-window", map_a_window, path);
	touch(map_file(fd, 8 * PAGE, MAP_PRIVATE), PAGE, 1);
	close(fd);
}

/* A file folio of 2 MB under one PMD, and under PTEs of another process. */
HOLD(huge_file, "file-huge", PHASE_STATE)
{
	static char path[] = "/mnt/disk/huge";
	disk();
	fill(path, HUGE_PAGE / PAGE);
	int fd = open_or_fail(path, O_RDWR);
	forget(fd);
	char *area = map_at_huge_boundary(HUGE_PAGE, 0);
	if (mmap(area, HUGE_PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		fail("mmap of a huge file");
	advise(area, HUGE_PAGE, MADV_HUGEPAGE, "MADV_HUGEPAGE");
	look(area, HUGE_PAGE);
	if (!is_thp(area))
		skip("MADV_HUGEPAGE gave no 2 MB file folio");
	spawn("huge-window", map_a_window, path);
	close(fd);
}
