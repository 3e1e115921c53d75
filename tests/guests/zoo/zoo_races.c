/* The zoo while it races: once every state is held, racers run through the machine for ever. */
#define _GNU_SOURCE
#include "hold.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { AFTER_SETTLING_MS = 9000 };

void race_for_ever(void);

HOLD(racing, "zoo-races", PHASE_TASK)
{
	char mode[32] = "";
	int fd = open_or_fail("/mode", O_RDONLY);
	if (read(fd, mode, sizeof(mode) - 1) <= 0)
		fail("read /mode");
	close(fd);
	if (strncmp(mode, "zoo-races", strlen("zoo-races")))
		skip("this zoo is at rest");
	if (fork())
		return;
	/* The keeper stops all daemons and records first; what starts here starts them again. */
	nap(AFTER_SETTLING_MS);
	race_for_ever();
}
