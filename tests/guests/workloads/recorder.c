/* Write down what /proc says about every process and every page, without changing any of it. */
#define _GNU_SOURCE
#include "hold.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * The stream is a row of pieces: two 32-bit lengths, a name, content. Pieces of one name belong together;
 * a name of length 0 ends the stream. It goes to a raw disk past the page cache, through locked memory.
 */
enum { STREAM_BYTES = 1 << 20, PIECE_BYTES = 1 << 16, MAPS_BYTES = 1 << 17, MAX_PIDS = 2000 };

static char stream[STREAM_BYTES] __attribute__((aligned(4096)));
static char piece[PIECE_BYTES], maps[MAPS_BYTES];
static int pids[MAX_PIDS];
static size_t used;
static int disk;

static void flush(void)
{
	size_t whole = (used + PAGE - 1) & ~(PAGE - 1);
	if (whole == used && used == 0)
		return;
	memset(stream + used, 0, whole - used);
	if (write(disk, stream, whole) != (ssize_t)whole)
		fail("write of the record");
	used = 0;
}

static void put(const void *content, size_t length)
{
	const char *from = content;
	while (length) {
		size_t step = STREAM_BYTES - used < length ? STREAM_BYTES - used : length;
		memcpy(stream + used, from, step);
		used += step;
		from += step;
		length -= step;
		if (used == STREAM_BYTES)
			flush();
	}
}

static void put_piece(const char *name, const void *content, size_t length)
{
	uint32_t lengths[2] = { strlen(name), length };
	put(lengths, sizeof(lengths));
	put(name, lengths[0]);
	put(content, length);
}

static void record_file(const char *path, const char *name)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got;
	if (fd < 0)
		return;
	while ((got = read(fd, piece, PIECE_BYTES)) > 0)
		put_piece(name, piece, got);
	close(fd);
}

static size_t read_maps(const char *folder)
{
	char path[80];
	size_t length = 0;
	ssize_t got;
	snprintf(path, sizeof(path), "%s/maps", folder);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	while (length < MAPS_BYTES - 1 && (got = read(fd, maps + length, MAPS_BYTES - 1 - length)) > 0)
		length += got;
	close(fd);
	maps[length] = 0;
	return length;
}

/* For each VMA: its start, its number of entries, the entries. */
static void record_pagemap(const char *folder, const char *name)
{
	char path[80];
	snprintf(path, sizeof(path), "%s/pagemap", folder);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	for (char *line = maps; *line;) {
		char *next;
		uint64_t start = strtoull(line, &next, 16), end = strtoull(next + 1, &next, 16);
		uint64_t header[2] = { start, (end - start) / PAGE };
		if (start >> 63)
			header[1] = 0;
		put_piece(name, header, sizeof(header));
		for (uint64_t at = 0; at < header[1];) {
			size_t wanted = (header[1] - at) * 8 < PIECE_BYTES ? (header[1] - at) * 8 : PIECE_BYTES;
			ssize_t got = pread(fd, piece, wanted, (start / PAGE + at) * 8);
			if (got <= 0) {
				memset(piece, 0, wanted);
				got = wanted;
			}
			put_piece(name, piece, got);
			at += got / 8;
		}
		line = strchr(next, '\n');
		line = line ? line + 1 : "";
	}
	close(fd);
}

/* The folder that shows this process's memory: its own, or that of a thread when the leader is gone. */
static bool find_folder(int pid, char *folder, size_t size)
{
	char path[64];
	snprintf(folder, size, "/proc/%d", pid);
	if (read_maps(folder))
		return true;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *tasks = opendir(path);
	bool is_found = false;
	for (struct dirent *task; tasks && !is_found && (task = readdir(tasks));) {
		snprintf(folder, size, "/proc/%d/task/%d", pid, atoi(task->d_name));
		is_found = atoi(task->d_name) > 0 && read_maps(folder);
	}
	if (tasks)
		closedir(tasks);
	return is_found;
}

static void record_process(int pid)
{
	static const char *const small[] = { "comm", "status", "stat", "cgroup", "wchan" };
	char folder[64], path[96], name[64];
	for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
		snprintf(path, sizeof(path), "/proc/%d/%s", pid, small[i]);
		record_file(path, path + 1);
	}
	if (!find_folder(pid, folder, sizeof(folder)))
		return;
	snprintf(name, sizeof(name), "proc/%d/maps", pid);
	put_piece(name, maps, strlen(maps));
	snprintf(name, sizeof(name), "proc/%d/pagemap", pid);
	record_pagemap(folder, name);
	snprintf(name, sizeof(name), "proc/%d/smaps", pid);
	snprintf(path, sizeof(path), "%s/smaps", folder);
	record_file(path, name);
}

static void record_folder(const char *folder)
{
	char path[300];
	DIR *files = opendir(folder);
	for (struct dirent *file; files && (file = readdir(files));) {
		if (file->d_type != DT_REG)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, file->d_name);
		record_file(path, path + 1);
	}
	if (files)
		closedir(files);
}

static void record_thp_sizes(void)
{
	char path[160];
	for (size_t kb = 8; kb <= 2048; kb *= 2) {
		snprintf(path, sizeof(path), "/sys/kernel/mm/transparent_hugepage/hugepages-%zukB/stats", kb);
		record_folder(path);
	}
}

static void record_groups(void)
{
	static const char *const groups[] = { "/cgroup", "/cgroup/even", "/cgroup/odd" };
	char path[64];
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/memory.stat", groups[i]);
		record_file(path, path + 1);
	}
}

static void record_everything(void)
{
	static const char *const files[] = { "/proc/meminfo", "/proc/zoneinfo", "/proc/iomem", "/proc/swaps",
					     "/proc/mounts", "/proc/version", "/proc/buddyinfo",
					     "/proc/vmstat", "/proc/kpagecount", "/proc/kpageflags" };
	int nr_pids = 0;
	DIR *processes = opendir("/proc");
	for (struct dirent *entry; processes && nr_pids < MAX_PIDS && (entry = readdir(processes));)
		if (atoi(entry->d_name) > 0)
			pids[nr_pids++] = atoi(entry->d_name);
	closedir(processes);
	if (lseek(disk, 0, SEEK_SET) < 0)
		fail("lseek");
	for (int i = 0; i < nr_pids; i++)
		record_process(pids[i]);
	record_folder("/sys/kernel/mm/ksm");
	record_folder("/sys/kernel/mm/transparent_hugepage");
	record_folder("/sys/kernel/mm/hugepages/hugepages-2048kB");
	record_thp_sizes();
	record_groups();
	/* The pages come last: nothing is read or made after them. */
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		record_file(files[i], files[i] + 1);
	uint32_t end[2] = { 0, 0 };
	put(end, sizeof(end));
	flush();
}

void record(const char *device)
{
	static const char first[] = "step record again\n", last[] = "recorded\n";
	disk = open_or_fail(device, O_WRONLY | O_DIRECT);
	memset(stream, 0, sizeof(stream));
	memset(piece, 0, sizeof(piece));
	memset(maps, 0, sizeof(maps));
	if (mlockall(MCL_CURRENT))
		fail("mlockall");
	nap(1000);
	/* Twice: the first time every page that the recorder needs is touched, the second time nothing changes. */
	record_everything();
	if (write(STDOUT_FILENO, first, sizeof(first) - 1) < 0)
		_exit(3);
	nap(1000);
	record_everything();
	nap(500);
	if (write(STDOUT_FILENO, last, sizeof(last) - 1) < 0)
		_exit(3);
}
