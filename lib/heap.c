#include "lib/heap.h"

#include <malloc.h>
#include <sys/prctl.h>

void heap_keep_small(void)
{
	mallopt(M_ARENA_MAX, 1);
	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}
