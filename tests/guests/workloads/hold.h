/* What every workload shares: how it registers itself, says that it is ready, and sleeps. */
#ifndef HOLD_H
#define HOLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define KIB 1024UL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define PAGE (4 * KIB)
#define HUGE_PAGE (2 * MIB)

/* A workload: its name, the phase it is started in, and the body that makes the state and returns. */
struct hold {
	const char *name;
	long phase;
	void (*body)(void);
	long pad;
};

/* Phases: daemons that move pages run and are stopped before anything that they could disturb exists. */
enum { PHASE_DAEMON = 0, PHASE_STATE = 1, PHASE_RECLAIM = 2, PHASE_TASK = 3, PHASE_LAST = 3 };

#define HOLD(ident, text, when)                                                        \
	static void ident(void);                                                       \
	static const struct hold hold_##ident                                          \
		__attribute__((used, section("holds"), aligned(8))) = { text, when, ident, 0 }; \
	static void ident(void)

/* A racer of the busy guest: its name and one turn of its loop. */
struct racer {
	const char *name;
	void (*turn)(void);
};

#define RACER(ident, text)                                                             \
	static void ident(void);                                                       \
	static const struct racer racer_##ident                                        \
		__attribute__((used, section("racers"), aligned(8))) = { text, ident };  \
	static void ident(void)

/* The end of a workload that cannot hold its state. */
void skip(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
/* One more line about the state that is held, kept in the manifest. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Fork a child that runs body(arg), tells the parent, and sleeps; the parent waits for it. */
pid_t spawn(const char *comm, void (*body)(void *), void *arg);
void name_process(const char *comm);
void sleep_for_ever(void) __attribute__((noreturn));
void nap(unsigned milliseconds);

/* Memory. Each fails loudly. */
void *map_anon(size_t length);
void *map_at_huge_boundary(size_t length, size_t offset);
void *map_file(int fd, size_t length, int flags);
void *map_thp(size_t length);
void touch(void *start, size_t length, int value);
void look(const void *start, size_t length);
void advise(void *start, size_t length, int advice, const char *what);
bool try_advise(void *start, size_t length, int advice);
int open_or_fail(const char *path, int flags);

/* /proc and /sys. */
bool write_text(const char *path, const char *text);
long read_number(const char *path);
uint64_t pagemap_entry(const void *address);
bool is_swapped(const void *address);
bool is_thp(const void *address);
uint64_t page_flags(const void *address);

#endif
