/* Pages of received packets, mapped into the receiver (TCP_ZEROCOPY_RECEIVE). */
#define _GNU_SOURCE
#include "hold.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PAGES_SENT = 8 };

static void raise_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request))
		skip("no loopback: errno %d", errno);
	request.ifr_flags |= IFF_UP;
	ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
}

static void connect_pair(int *near, int *far)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(here);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*near = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (void *)&here, length) || listen(listener, 1) ||
	    getsockname(listener, (void *)&here, &length) || connect(*near, (void *)&here, length))
		fail("a TCP connection");
	*far = accept(listener, NULL, NULL);
	if (*far < 0)
		fail("accept");
	close(listener);
}

/* Whole pages that belong to nobody travel from a pipe through the socket: only such are mapped. */
HOLD(received, "zoo-tcp-receive", PHASE_STATE)
{
	static char text[PAGE];
	int near, far, ends[2];
	raise_loopback();
	connect_pair(&near, &far);
	char *area = mmap(NULL, PAGES_SENT * PAGE, PROT_READ, MAP_SHARED, far, 0);
	if (area == MAP_FAILED)
		skip("mmap of a socket: errno %d", errno);
	if (pipe(ends))
		fail("pipe");
	for (int i = 0; i < PAGES_SENT; i++) {
		memset(text, i + 1, PAGE);
		if (write(ends[1], text, PAGE) != (ssize_t)PAGE)
			fail("write to a pipe");
	}
	if (splice(ends[0], NULL, near, NULL, PAGES_SENT * PAGE, 0) < 0)
		fail("splice to a socket");
	nap(100);
	struct tcp_zerocopy_receive request = { .address = (uintptr_t)area, .length = PAGES_SENT * PAGE };
	socklen_t length = sizeof(request);
	if (getsockopt(far, IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE, &request, &length))
		skip("TCP_ZEROCOPY_RECEIVE: errno %d", errno);
	note("%u bytes mapped, %u to be copied", request.length, request.recv_skip_hint);
}
