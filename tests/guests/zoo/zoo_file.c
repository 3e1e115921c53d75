/* Files that are odd: truncated under a pipe, smaller than their folio, sealed, deleted, a block device, other pages. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BPF_ARENA = 33, BPF_RING = 27, SEAL_FUTURE_WRITE = 0x10 };

static void stay(void *area)
{
	(void)area;
}

/* Page cache that lost its file: what the pipe holds was truncated. */
static void splice_and_cut(const char *path)
{
	int ends[2], fd = open_or_fail(path, O_RDWR | O_CREAT);
	if (ftruncate(fd, 64 * PAGE) || pipe(ends))
		fail("ftruncate or pipe");
	touch(map_file(fd, 64 * PAGE, MAP_SHARED), 64 * PAGE, 1);
	if (splice(fd, NULL, ends[1], NULL, 4 * PAGE, 0) < 0)
		fail("splice");
	if (ftruncate(fd, PAGE))
		fail("ftruncate");
	close(fd);
}

HOLD(truncated, "zoo-splice-truncated", PHASE_STATE)
{
	splice_and_cut("/mnt/tmp/cut");
	splice_and_cut("/mnt/huge/cut");
	splice_and_cut("/mnt/disk/cut");
}

/* A 2 MB folio of a file of five pages; then a file cut in the middle of one that is mapped whole. */
HOLD(beyond_end, "zoo-beyond-eof", PHASE_STATE)
{
	int fd = open_or_fail("/mnt/huge/short", O_RDWR | O_CREAT);
	if (ftruncate(fd, 5 * PAGE))
		fail("ftruncate");
	touch(map_file(fd, 5 * PAGE, MAP_SHARED), 5 * PAGE, 1);
	close(fd);
	fd = open_or_fail("/mnt/huge/cut-in-two", O_RDWR | O_CREAT);
	if (ftruncate(fd, 2 * HUGE_PAGE))
		fail("ftruncate");
	char *place = map_at_huge_boundary(2 * HUGE_PAGE, 0);
	char *area = mmap(place, 2 * HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	touch(area, 2 * HUGE_PAGE, 1);
	spawn("zoo-eof-kid", stay, area);
	if (ftruncate(fd, HUGE_PAGE + 37 * PAGE + 100))
		fail("ftruncate");
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 21 * PAGE, 9 * PAGE))
		fail("fallocate");
	close(fd);
}

/* Sealed against writing: i_mmap_writable is negative while readers map it. */
HOLD(sealed, "zoo-memfd-sealed", PHASE_STATE)
{
	int fd = memfd_create("sealed", MFD_ALLOW_SEALING | MFD_CLOEXEC), later;
	if (fd < 0 || ftruncate(fd, 8 * PAGE) || write(fd, "content", 7) != 7)
		fail("memfd_create");
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK))
		fail("F_ADD_SEALS");
	char *area = mmap(NULL, 8 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
	look(area, 8 * PAGE);
	area = mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (area != MAP_FAILED)
		look(area, 8 * PAGE);
	later = memfd_create("sealed-later", MFD_ALLOW_SEALING | MFD_CLOEXEC);
	if (later < 0 || ftruncate(later, 8 * PAGE))
		fail("memfd_create");
	char *writer = map_file(later, 8 * PAGE, MAP_SHARED);
	touch(writer, 8 * PAGE, 1);
	if (fcntl(later, F_ADD_SEALS, SEAL_FUTURE_WRITE))
		fail("F_SEAL_FUTURE_WRITE");
	look(mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, later, 0), 8 * PAGE);
	spawn("zoo-sealed-kid", stay, writer);
}

static void map_deleted(const char *folder)
{
	int fd = open(folder, O_TMPFILE | O_RDWR, 0600);
	if (fd < 0)
		return;
	if (ftruncate(fd, 8 * PAGE))
		fail("ftruncate");
	char *area = map_file(fd, 8 * PAGE, MAP_SHARED);
	touch(area, 8 * PAGE, 1);
	touch(map_file(fd, 8 * PAGE, MAP_PRIVATE), 3 * PAGE, 2);
	close(fd);
}

HOLD(deleted, "zoo-deleted", PHASE_STATE)
{
	map_deleted("/mnt/tmp");
	map_deleted("/mnt/huge");
	map_deleted("/mnt/disk");
}

/* The page cache of a block device hangs on another inode than the one that was opened. */
HOLD(block_device, "zoo-block-device", PHASE_STATE)
{
	int fd = open("/dev/vdc", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		skip("no third disk: errno %d", errno);
	look(map_file(fd, 16 * PAGE, MAP_SHARED), 16 * PAGE);
	touch(map_file(fd, 16 * PAGE, MAP_PRIVATE), 4 * PAGE, 1);
	close(fd);
}

static int bpf_map(uint32_t type, uint32_t entries, uint32_t value_size, uint32_t flags)
{
	union bpf_attr attr;
	memset(&attr, 0, sizeof(attr));
	attr.map_type = type;
	attr.key_size = type == BPF_MAP_TYPE_ARRAY ? 4 : 0;
	attr.value_size = value_size;
	attr.max_entries = entries;
	attr.map_flags = flags;
	return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
}

/* The kernel's own pages in user space: without an owner, some of them mapped twice side by side. */
HOLD(bpf_pages, "zoo-bpf-maps", PHASE_STATE)
{
	int array = bpf_map(BPF_MAP_TYPE_ARRAY, 4, 2 * PAGE, BPF_F_MMAPABLE);
	if (array < 0)
		skip("no BPF: errno %d", errno);
	char *area = map_file(array, 8 * PAGE, MAP_SHARED);
	touch(area, 8 * PAGE, 1);
	spawn("zoo-bpf-kid", stay, area);
	int ring = bpf_map(BPF_RING, 4 * PAGE, 0, 0);
	if (ring >= 0) {
		char *positions = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ring, 0);
		char *data = mmap(NULL, 9 * PAGE, PROT_READ, MAP_SHARED, ring, PAGE);
		if (positions != MAP_FAILED)
			look(positions, PAGE);
		if (data != MAP_FAILED)
			look(data, 9 * PAGE);
	}
}

HOLD(bpf_arena, "zoo-bpf-arena", PHASE_STATE)
{
	int arena = bpf_map(BPF_ARENA, 16, 0, BPF_F_MMAPABLE);
	if (arena < 0)
		skip("no BPF arena: errno %d", errno);
	char *area = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, arena, 0);
	if (area == MAP_FAILED)
		skip("mmap of a BPF arena: errno %d", errno);
	touch(area, 6 * PAGE, 1);
}
