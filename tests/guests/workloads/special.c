/* Mappings of what is no ordinary page: device memory, packet and perf rings, secret memory. */
#define _GNU_SOURCE
#include "hold.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/if_packet.h>
#include <linux/perf_event.h>
#include <net/ethernet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { DISPLAY_CLASS = 0x0300 };

/* The folder of the first display device, without its last part; false when there is none. */
static bool find_display(char *folder, size_t size)
{
	glob_t found;
	bool is_found = false;
	if (glob("/sys/bus/pci/devices/*/class", 0, NULL, &found))
		return false;
	for (size_t i = 0; i < found.gl_pathc && !is_found; i++) {
		char text[32] = "";
		int fd = open_or_fail(found.gl_pathv[i], O_RDONLY);
		if (read(fd, text, sizeof(text) - 1) > 0 && strtol(text, NULL, 16) >> 8 == DISPLAY_CLASS) {
			snprintf(folder, size, "%.*s", (int)(strlen(found.gl_pathv[i]) - strlen("class")),
				 found.gl_pathv[i]);
			is_found = true;
		}
		close(fd);
	}
	globfree(&found);
	return is_found;
}

static void stay(void *area)
{
	(void)area;
}

HOLD(device_memory, "pfnmap-device", PHASE_STATE)
{
	char folder[200], path[240];
	if (!find_display(folder, sizeof(folder)))
		skip("no display device");
	snprintf(path, sizeof(path), "%sresource0", folder);
	int fd = open_or_fail(path, O_RDWR);
	char *area = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (area == MAP_FAILED)
		fail("mmap of %s", path);
	touch(area, 2 * PAGE, 1);
	spawn("pfnmap-child", stay, area);
}

/* A private mapping of device memory, partly written: anonymous copies inside VM_PFNMAP. */
HOLD(device_copy, "pfnmap-cow", PHASE_STATE)
{
	char folder[200], path[240], text[64] = "";
	if (!find_display(folder, sizeof(folder)))
		skip("no display device");
	snprintf(path, sizeof(path), "%sresource", folder);
	int resources = open_or_fail(path, O_RDONLY);
	if (read(resources, text, sizeof(text) - 1) <= 0)
		fail("read %s", path);
	int fd = open_or_fail("/dev/mem", O_RDWR);
	char *area = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, strtoull(text, NULL, 16));
	if (area == MAP_FAILED)
		skip("mmap of /dev/mem: errno %d", errno);
	touch(area + 2 * PAGE, 2 * PAGE, 1);
	spawn("pfnmap-cow-kid", stay, area);
}

HOLD(packet_ring, "mixedmap-packet", PHASE_STATE)
{
	int fd = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	if (fd < 0)
		skip("no packet sockets: errno %d", errno);
	struct tpacket_req request = { .tp_block_size = 4 * PAGE, .tp_block_nr = 2, .tp_frame_size = 2048,
				       .tp_frame_nr = 16 };
	if (setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request)))
		fail("PACKET_RX_RING");
	look(map_file(fd, 8 * PAGE, MAP_SHARED), 8 * PAGE);
}

HOLD(perf_ring, "perf-ring", PHASE_STATE)
{
	struct perf_event_attr wanted = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(wanted),
					  .config = PERF_COUNT_SW_DUMMY, .disabled = 1 };
	int fd = syscall(SYS_perf_event_open, &wanted, 0, -1, -1, 0);
	if (fd < 0)
		skip("no perf events: errno %d", errno);
	look(map_file(fd, 5 * PAGE, MAP_SHARED), 5 * PAGE);
}

HOLD(secret, "secretmem", PHASE_STATE)
{
	int fd = syscall(447, O_CLOEXEC);
	if (fd < 0)
		skip("memfd_secret: errno %d", errno);
	if (ftruncate(fd, 4 * PAGE))
		fail("ftruncate");
	char *area = map_file(fd, 4 * PAGE, MAP_SHARED);
	touch(area, 4 * PAGE, 1);
	spawn("secret-child", stay, area);
}
