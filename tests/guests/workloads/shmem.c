/* tmpfs and System V shared memory, small and huge folios. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

enum { SHARED_PAGES = 16 };

static void map_the_half(void *argument)
{
	int fd = open_or_fail(argument, O_RDWR);
	touch(map_file(fd, SHARED_PAGES / 2 * PAGE, MAP_SHARED), SHARED_PAGES / 2 * PAGE, 1);
	close(fd);
}

HOLD(tmpfs_file, "shmem-file", PHASE_STATE)
{
	static char path[] = "/mnt/tmp/shared";
	int fd = open_or_fail(path, O_RDWR | O_CREAT);
	if (ftruncate(fd, SHARED_PAGES * PAGE))
		fail("ftruncate");
	touch(map_file(fd, SHARED_PAGES * PAGE, MAP_SHARED), SHARED_PAGES * PAGE, 1);
	close(fd);
	for (int i = 0; i < 3; i++)
		spawn("shmem-sharer", map_the_half, path);
}

static void stay(void *argument)
{
	look(argument, 4 * PAGE);
}

HOLD(sysv_segment, "shmem-sysv", PHASE_STATE)
{
	int id = shmget(IPC_PRIVATE, 8 * PAGE, IPC_CREAT | 0600);
	if (id < 0)
		skip("no System V shared memory");
	char *area = shmat(id, NULL, 0);
	if (area == (void *)-1)
		fail("shmat");
	touch(area, 8 * PAGE, 1);
	shmctl(id, IPC_RMID, NULL);
	spawn("sysv-child", stay, area);
}

static void map_by_pages(void *argument)
{
	int fd = open_or_fail(argument, O_RDWR);
	/* A mapping that does not reach over the whole folio can only use PTEs. */
	char *part = mmap(NULL, 12 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 64 * PAGE);
	if (part == MAP_FAILED)
		fail("mmap of part of a huge tmpfs file");
	touch(part, 12 * PAGE, 1);
	close(fd);
}

static char *map_huge_file(int fd, size_t length)
{
	char *start = map_at_huge_boundary(length, 0);
	if (mmap(start, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		fail("mmap of a huge tmpfs file");
	return start;
}

static void map_by_pmd(void *argument)
{
	int fd = open_or_fail(argument, O_RDWR);
	char *area = map_huge_file(fd, 2 * HUGE_PAGE);
	area[0] = 1;
	area[HUGE_PAGE] = 1;
	close(fd);
}

/* Two huge tmpfs folios, each PMD-mapped twice and PTE-mapped by others. */
HOLD(huge_tmpfs, "shmem-huge", PHASE_STATE)
{
	static char path[] = "/mnt/huge/file";
	int fd = open_or_fail(path, O_RDWR | O_CREAT);
	if (ftruncate(fd, 2 * HUGE_PAGE))
		fail("ftruncate");
	char *area = map_huge_file(fd, 2 * HUGE_PAGE);
	touch(area, 2 * HUGE_PAGE, 1);
	if (!is_thp(area))
		skip("tmpfs gave no huge folio");
	close(fd);
	spawn("shmem-pmd", map_by_pmd, path);
	spawn("shmem-pte", map_by_pages, path);
	/* A process that had a PMD and split it by unmapping a page of it. */
	spawn("shmem-pte", map_by_pages, path);
}
