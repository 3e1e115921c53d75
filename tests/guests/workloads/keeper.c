/* The first process of the guest: starts each workload, reports it on the console, then sleeps or races. */
#define _GNU_SOURCE
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

extern const struct hold __start_holds[], __stop_holds[];
void race_for_ever(void);
void wake_daemons_once(void);
void join_group(long number);
void settle(void);
void record(const char *device);

enum { WAIT_MS = 60000 };

/* Where the running workload reports to; -1 in the keeper itself. */
static int report_fd = -1;

static void report(const char *kind, const char *format, va_list arguments)
{
	char text[400], line[480];
	vsnprintf(text, sizeof(text), format, arguments);
	int length = snprintf(line, sizeof(line), "%s %s\n", kind, text);
	if (report_fd < 0)
		report_fd = STDOUT_FILENO;
	if (write(report_fd, line, length) != length)
		_exit(3);
}

void note(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	report("note", format, arguments);
	va_end(arguments);
}

void skip(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	report("skip", format, arguments);
	va_end(arguments);
	_exit(0);
}

void fail(const char *format, ...)
{
	int error = errno;
	char text[300];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	char line[400];
	int length = snprintf(line, sizeof(line), "fail %s: %s\n", text, strerror(error));
	if (write(report_fd < 0 ? STDOUT_FILENO : report_fd, line, length) != length)
		_exit(3);
	_exit(1);
}

void name_process(const char *comm)
{
	prctl(PR_SET_NAME, comm);
}

void sleep_for_ever(void)
{
	for (;;)
		pause();
}

void nap(unsigned milliseconds)
{
	usleep(milliseconds * 1000);
}

/* Wait for one byte or the end of a pipe; false when the time is over. */
static bool wait_for(int fd)
{
	struct pollfd wanted = { .fd = fd, .events = POLLIN };
	return poll(&wanted, 1, WAIT_MS) > 0;
}

pid_t spawn(const char *comm, void (*body)(void *), void *arg)
{
	int ends[2];
	char byte = 0;
	if (pipe(ends))
		fail("pipe");
	pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid) {
		close(ends[0]);
		name_process(comm);
		body(arg);
		if (write(ends[1], "r", 1) != 1)
			_exit(3);
		close(ends[1]);
		sleep_for_ever();
	}
	close(ends[1]);
	if (!wait_for(ends[0]) || read(ends[0], &byte, 1) != 1)
		fail("the child %s did not become ready", comm);
	close(ends[0]);
	return pid;
}

/* Pass a workload's lines on to the console until it is ready, skips or fails. */
static bool follow(const struct hold *hold, pid_t pid, int fd)
{
	char text[2048] = "";
	size_t used = 0;
	for (;;) {
		if (!wait_for(fd)) {
			printf("fail %s no answer in %d s\n", hold->name, WAIT_MS / 1000);
			return true;
		}
		ssize_t got = read(fd, text + used, sizeof(text) - 1 - used);
		if (got <= 0) {
			printf("fail %s ended without a word\n", hold->name);
			return false;
		}
		used += got;
		text[used] = 0;
		for (char *end; (end = strchr(text, '\n'));) {
			*end = 0;
			char *rest = strchr(text, ' ');
			if (rest)
				*rest++ = 0;
			bool is_last = strcmp(text, "note") != 0, is_ready = !strcmp(text, "ready");
			if (is_ready)
				printf("ready %s %d\n", hold->name, pid);
			else
				printf("%s %s %s\n", text, hold->name, rest ? rest : "");
			if (is_last)
				return is_ready;
			used -= end + 1 - text;
			memmove(text, end + 1, used + 1);
		}
	}
}

static void start(const struct hold *hold)
{
	int ends[2];
	if (pipe(ends))
		fail("pipe");
	pid_t pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid) {
		close(ends[0]);
		report_fd = ends[1];
		name_process(hold->name);
		join_group(hold - __start_holds);
		hold->body();
		if (write(report_fd, "ready\n", 6) != 6)
			_exit(3);
		close(report_fd);
		sleep_for_ever();
	}
	close(ends[1]);
	bool is_held = follow(hold, pid, ends[0]);
	close(ends[0]);
	/* A workload that gives up ends by itself; no zombie of it shall stay. */
	if (!is_held)
		waitpid(pid, NULL, 0);
}

static void hold_everything(void)
{
	for (long phase = 0; phase <= PHASE_LAST; phase++)
		for (const struct hold *hold = __start_holds; hold < __stop_holds; hold++)
			if (hold->phase == phase)
				start(hold);
}

int main(int argc, char **argv)
{
	int console = open("/dev/console", O_RDWR | O_CLOEXEC);
	if (console >= 0) {
		dup2(console, STDOUT_FILENO);
		dup2(console, STDERR_FILENO);
	}
	setvbuf(stdout, NULL, _IONBF, 0);
	/* The kernel starts this program once more to take a core dump: it never reads it. */
	if (argc > 1 && !strcmp(argv[1], "core-sink")) {
		name_process("core-sink");
		sleep_for_ever();
	}
	name_process("keeper");
	printf("step workloads\n");
	if (argc > 1 && !strcmp(argv[1], "busy"))
		race_for_ever();
	wake_daemons_once();
	hold_everything();
	printf("step settle\n");
	settle();
	printf("step record\n");
	if (argc > 2 && !fork()) {
		name_process("recorder");
		record(argv[2]);
		sleep_for_ever();
	}
	sleep_for_ever();
}
