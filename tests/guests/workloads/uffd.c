/* Memory watched by userfaultfd: missing, write-protected, poisoned, moved, read-write-protected. */
#define _GNU_SOURCE
#include "uffd.h"
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

int open_uffd(uint64_t features, const char *what)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		skip("no userfaultfd: errno %d", errno);
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	if (ioctl(fd, UFFDIO_API, &api))
		skip("%s: not in this kernel", what);
	return fd;
}

void register_range(int fd, void *start, size_t length, uint64_t mode)
{
	struct uffdio_register request = { .range = { (uintptr_t)start, length }, .mode = mode };
	if (ioctl(fd, UFFDIO_REGISTER, &request))
		fail("UFFDIO_REGISTER with mode %llu", (unsigned long long)mode);
}

void write_protect(int fd, void *start, size_t length)
{
	struct uffdio_writeprotect request = { { (uintptr_t)start, length }, UFFDIO_WRITEPROTECT_MODE_WP };
	if (ioctl(fd, UFFDIO_WRITEPROTECT, &request))
		fail("UFFDIO_WRITEPROTECT");
}

HOLD(missing, "uffd-missing", PHASE_STATE)
{
	int fd = open_uffd(0, "userfaultfd");
	char *area = map_anon(16 * PAGE), *source = map_anon(4 * PAGE);
	touch(source, 4 * PAGE, 1);
	touch(area, 2 * PAGE, 1);
	register_range(fd, area, 16 * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	struct uffdio_copy copy = { .dst = (uintptr_t)area + 4 * PAGE, .src = (uintptr_t)source, .len = 4 * PAGE };
	if (ioctl(fd, UFFDIO_COPY, &copy))
		fail("UFFDIO_COPY");
	struct uffdio_zeropage zero = { .range = { (uintptr_t)area + 10 * PAGE, 2 * PAGE } };
	if (ioctl(fd, UFFDIO_ZEROPAGE, &zero))
		fail("UFFDIO_ZEROPAGE");
}

static void write_a_copy(void *area)
{
	touch((char *)area + 4 * PAGE, 2 * PAGE, 1);
}

HOLD(protected_anon, "uffd-wp", PHASE_STATE)
{
	int fd = open_uffd(0, "userfaultfd");
	char *area = map_anon(16 * PAGE);
	char *thp = map_thp(2 * HUGE_PAGE);
	touch(area, 12 * PAGE, 1);
	register_range(fd, area, 16 * PAGE, UFFDIO_REGISTER_MODE_WP);
	register_range(fd, thp, 2 * HUGE_PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, area + 2 * PAGE, 14 * PAGE);
	write_protect(fd, thp, HUGE_PAGE);
	write_protect(fd, thp + HUGE_PAGE, 16 * PAGE);
	/* The child is not registered: its copies of the entries lose the bit. */
	spawn("uffd-wp-child", write_a_copy, area);
}

HOLD(protected_holes, "uffd-wp-unpopulated", PHASE_STATE)
{
	int fd = open_uffd(FEATURE_WP_UNPOPULATED, "UFFD_FEATURE_WP_UNPOPULATED");
	char *area = map_anon(16 * PAGE);
	touch(area, 4 * PAGE, 1);
	register_range(fd, area, 16 * PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, area, 12 * PAGE);
}

HOLD(protected_shmem, "uffd-wp-shmem", PHASE_STATE)
{
	int fd = open_uffd(UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM");
	char *area = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		fail("mmap");
	touch(area, 8 * PAGE, 1);
	register_range(fd, area, 16 * PAGE, UFFDIO_REGISTER_MODE_WP);
	/* Pages that are there, pages that never were, and pages whose entries were dropped afterwards. */
	write_protect(fd, area, 12 * PAGE);
	advise(area + 4 * PAGE, 2 * PAGE, MADV_DONTNEED, "MADV_DONTNEED");
}

HOLD(protected_hugetlb, "uffd-wp-hugetlb", PHASE_STATE)
{
	int fd = open_uffd(UFFD_FEATURE_WP_HUGETLBFS_SHMEM, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM");
	char *area = mmap(NULL, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (area == MAP_FAILED)
		skip("no hugetlb folios");
	area[0] = 1;
	register_range(fd, area, 2 * HUGE_PAGE, UFFDIO_REGISTER_MODE_WP);
	write_protect(fd, area, 2 * HUGE_PAGE);
}

HOLD(minor, "uffd-minor", PHASE_STATE)
{
	int fd = open_uffd(UFFD_FEATURE_MINOR_SHMEM, "UFFD_FEATURE_MINOR_SHMEM");
	int file = open_or_fail("/mnt/tmp/minor", O_RDWR | O_CREAT);
	if (ftruncate(file, 8 * PAGE))
		fail("ftruncate");
	char *writer = map_file(file, 8 * PAGE, MAP_SHARED), *watched = map_file(file, 8 * PAGE, MAP_SHARED);
	touch(writer, 8 * PAGE, 1);
	register_range(fd, watched, 8 * PAGE, UFFDIO_REGISTER_MODE_MINOR);
	struct uffdio_continue request = { .range = { (uintptr_t)watched, 4 * PAGE } };
	if (ioctl(fd, UFFDIO_CONTINUE, &request))
		fail("UFFDIO_CONTINUE");
}

HOLD(poisoned, "uffd-poison", PHASE_STATE)
{
	int fd = open_uffd(FEATURE_POISON, "UFFDIO_POISON");
	char *area = map_anon(8 * PAGE);
	touch(area, 2 * PAGE, 1);
	register_range(fd, area, 8 * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	struct poison_request request = { .range = { (uintptr_t)area + 4 * PAGE, 3 * PAGE } };
	if (ioctl(fd, REQUEST_POISON, &request))
		fail("UFFDIO_POISON");
}

static void move_range(int fd, char *target, char *source, size_t length)
{
	struct move_request request = { (uintptr_t)target, (uintptr_t)source, length, 0, 0 };
	if (ioctl(fd, REQUEST_MOVE, &request))
		fail("UFFDIO_MOVE of %zu bytes", length);
}

HOLD(moved, "uffd-move", PHASE_STATE)
{
	int fd = open_uffd(FEATURE_MOVE, "UFFDIO_MOVE");
	char *source = map_anon(8 * PAGE), *huge_source = map_thp(2 * HUGE_PAGE);
	char *target = map_anon(8 * PAGE), *huge_target = map_at_huge_boundary(2 * HUGE_PAGE, 0);
	advise(huge_target, 2 * HUGE_PAGE, MADV_HUGEPAGE, "MADV_HUGEPAGE");
	touch(source, 8 * PAGE, 1);
	register_range(fd, target, 8 * PAGE, UFFDIO_REGISTER_MODE_MISSING);
	register_range(fd, huge_target, 2 * HUGE_PAGE, UFFDIO_REGISTER_MODE_MISSING);
	move_range(fd, target + 3 * PAGE, source + PAGE, 4 * PAGE);
	move_range(fd, huge_target, huge_source, HUGE_PAGE);
	/* Part of a 2 MB folio: the kernel splits it first; newer ones map its zero-filled pages to the zero page. */
	move_range(fd, huge_target + HUGE_PAGE, huge_source + HUGE_PAGE, 8 * PAGE);
}

HOLD(tracked, "uffd-rwp", PHASE_STATE)
{
	int fd = open_uffd(FEATURE_RWP, "UFFDIO_RWPROTECT");
	char *area = map_anon(16 * PAGE);
	char *thp = map_thp(HUGE_PAGE);
	touch(area, 8 * PAGE, 1);
	register_range(fd, area, 16 * PAGE, MODE_RWP);
	register_range(fd, thp, HUGE_PAGE, MODE_RWP);
	struct uffdio_writeprotect request = { { (uintptr_t)area + 2 * PAGE, 8 * PAGE }, 1 };
	struct uffdio_writeprotect huge = { { (uintptr_t)thp, HUGE_PAGE }, 1 };
	if (ioctl(fd, REQUEST_RWPROTECT, &request) || ioctl(fd, REQUEST_RWPROTECT, &huge))
		fail("UFFDIO_RWPROTECT");
}
