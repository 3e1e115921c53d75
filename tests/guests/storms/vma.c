/* Storms on VMAs: threads of one process that map, split, merge, move and protect the same stretch of memory. */
#include "storm.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

enum { AREA_PAGES = 768, THREADS = 3, STEPS = 200 };

static char *area;
static int file = -1;

static char *some(size_t *length)
{
	unsigned long pages = 1 + pick(48);
	*length = pages * PAGE;
	return area + pick(AREA_PAGES - pages) * PAGE;
}

static void lay_out(void)
{
	if (file < 0) {
		file = open("/mnt/tmp/storm", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (ftruncate(file, AREA_PAGES * PAGE))
			_exit(1);
	}
	if (!area)
		area = map_huge_aligned(AREA_PAGES * PAGE);
}

/* Only pages that are there and may be written are: everything else in the area changes under our feet. */
static void write_some(void)
{
	static __thread int into = -1, from;
	if (into < 0) {
		int ends[2];
		if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
			return;
		from = ends[0], into = ends[1];
	}
	size_t length;
	char *start = some(&length);
	for (size_t at = 0; at < length; at += PAGE) {
		/* The kernel writes to the page, or refuses: no signal. */
		if (write(into, "x", 1) == 1 && read(from, start + at, 1) < 0 && read(from, &(char){ 0 }, 1) < 0)
			return;
	}
}

static void *protect(void *unused)
{
	static const int kinds[] = { PROT_READ, PROT_NONE, PROT_READ | PROT_WRITE, PROT_READ | PROT_EXEC };
	for (int step = 0; step < STEPS; step++) {
		size_t length;
		char *start = some(&length);
		mprotect(start, length, kinds[pick(4)]);
		write_some();
		mprotect(start, length, PROT_READ | PROT_WRITE);
	}
	return unused;
}

static void *map_over(void *unused)
{
	for (int step = 0; step < STEPS; step++) {
		size_t length;
		char *start = some(&length);
		int flags = pick(2) ? MAP_PRIVATE : MAP_SHARED;
		if (pick(3))
			mmap(start, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
		else
			mmap(start, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, file, start - area);
		write_some();
		if (!pick(4))
			munmap(start, length);
		if (!pick(4))
			mlock(start, length);
		if (!pick(4))
			madvise(start, length, pick(2) ? MADV_DONTNEED : MADV_WILLNEED);
	}
	return unused;
}

static void *move(void *unused)
{
	for (int step = 0; step < STEPS; step++) {
		size_t length;
		char *start = some(&length), *target = some(&length);
		size_t old = (1 + pick(length / PAGE)) * PAGE, fresh = (1 + pick(length / PAGE)) * PAGE;
		mremap(start, old, fresh, MREMAP_MAYMOVE | (pick(2) ? MREMAP_FIXED : 0), target);
		write_some();
		if (!pick(8))
			mremap(start, old, old, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, target);
		sbrk((pick(2) ? 8 : -8) * (long)PAGE);
	}
	return unused;
}

static void together(void *(*const works[])(void *), int nr)
{
	pthread_t threads[THREADS];
	lay_out();
	int started = 0;
	for (; started < THREADS; started++)
		if (pthread_create(&threads[started], NULL, works[started % nr], NULL))
			break;
	for (int i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	if (pick(4) == 0 && !fork()) {
		write_some();
		_exit(0);
	}
}

static void protecting(void)
{
	static void *(*const works[])(void *) = { protect, protect, map_over };
	together(works, 3);
}

static void moving(void)
{
	static void *(*const works[])(void *) = { move, map_over, move };
	together(works, 3);
}

static void mixing(void)
{
	static void *(*const works[])(void *) = { protect, map_over, move };
	together(works, 3);
}

const struct storm vma_storms[] = {
	{ "storm-mprotect", NULL, protecting, 2 },
	{ "storm-mremap", NULL, moving, 2 },
	{ "storm-vma", NULL, mixing, 2 },
	{ 0 },
};
