/* A storm: one kind of work, done by many processes at once, so that any moment is in the middle of it. */
#ifndef STORM_H
#define STORM_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGE 4096UL
#define MIB (1024 * 1024UL)
#define HUGE_PAGE (2 * MIB)

/* Name, what is done once before the processes are started, one turn of each process, processes per CPU. */
struct storm {
	const char *name;
	void (*prepare)(void);
	void (*turn)(void);
	long per_cpu;
};

extern const struct storm vma_storms[], memory_storms[], process_storms[], group_storms[];

unsigned long pick(unsigned long limit);
bool write_text(const char *path, const char *text);
/* Memory aligned to 2 MB, or NULL. */
char *map_huge_aligned(size_t length);
/* One byte of every step-th page. */
void dirty(char *start, size_t length, unsigned long step);
void look(const char *start, size_t length, unsigned long step);

#endif
