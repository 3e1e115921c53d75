/* What racers share: random choices. Racers ignore refusals; a turn that the kernel denies is no failure. */
#ifndef RACE_H
#define RACE_H

#include <stdlib.h>

static inline unsigned long pick(unsigned long limit)
{
	return (unsigned long)random() % limit;
}

#endif
