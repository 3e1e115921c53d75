/* Small helpers around mmap, madvise, /proc/self/pagemap and sysfs. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *map_anon(size_t length)
{
	void *start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (start == MAP_FAILED)
		fail("mmap of %zu bytes", length);
	return start;
}

/* Anonymous memory that starts offset bytes after a 2 MB boundary; what lies around it stays unmapped. */
void *map_at_huge_boundary(size_t length, size_t offset)
{
	size_t span = length + offset + 2 * HUGE_PAGE;
	char *hole = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (hole == MAP_FAILED)
		fail("mmap of a hole of %zu bytes", span);
	uintptr_t start = (((uintptr_t)hole + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1)) + offset;
	munmap(hole, span);
	void *got = mmap((void *)start, length, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (got == MAP_FAILED)
		fail("mmap of %zu bytes at a huge boundary", length);
	return got;
}

void *map_file(int fd, size_t length, int flags)
{
	void *start = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, 0);
	if (start == MAP_FAILED)
		fail("mmap of a file, %zu bytes", length);
	return start;
}

/* Anonymous memory backed by 2 MB folios, touched. */
void *map_thp(size_t length)
{
	char *start = map_at_huge_boundary(length, 0);
	advise(start, length, MADV_HUGEPAGE, "MADV_HUGEPAGE");
	for (size_t at = 0; at < length; at += HUGE_PAGE)
		start[at] = 1;
	if (!is_thp(start))
		skip("the kernel gave no 2 MB folio");
	return start;
}

void touch(void *start, size_t length, int value)
{
	for (size_t at = 0; at < length; at += PAGE) {
		volatile char *byte = (char *)start + at;
		*byte = value + at / PAGE;
	}
}

void look(const void *start, size_t length)
{
	for (size_t at = 0; at < length; at += PAGE)
		(void)*((const volatile char *)start + at);
}

bool try_advise(void *start, size_t length, int advice)
{
	return madvise(start, length, advice) == 0;
}

void advise(void *start, size_t length, int advice, const char *what)
{
	if (try_advise(start, length, advice))
		return;
	if (errno == EINVAL)
		skip("%s: not in this kernel", what);
	fail("%s", what);
}

int open_or_fail(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);
	if (fd < 0)
		fail("open %s", path);
	return fd;
}

bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool is_written = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return is_written;
}

long read_number(const char *path)
{
	char text[64] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ssize_t got = read(fd, text, sizeof(text) - 1);
	close(fd);
	return got > 0 ? strtol(text, NULL, 10) : -1;
}

static uint64_t read_word(const char *path, uint64_t position)
{
	uint64_t word = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail("open %s", path);
	if (pread(fd, &word, sizeof(word), position * sizeof(word)) != sizeof(word))
		word = 0;
	close(fd);
	return word;
}

uint64_t pagemap_entry(const void *address)
{
	return read_word("/proc/self/pagemap", (uintptr_t)address / PAGE);
}

bool is_swapped(const void *address)
{
	return pagemap_entry(address) >> 62 & 1;
}

uint64_t page_flags(const void *address)
{
	uint64_t entry = pagemap_entry(address);
	if (!(entry >> 63))
		return 0;
	return read_word("/proc/kpageflags", entry & ((1ULL << 55) - 1));
}

bool is_thp(const void *address)
{
	enum { KPF_THP = 22 };
	return page_flags(address) >> KPF_THP & 1;
}
