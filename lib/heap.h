#pragma once
/*
 * heap: how much memory a program keeps.
 */

/* At the start of main(). Threads share one heap: where memory is short as a thread starts, it would have none for good and
 * map a page for each allocation, and what others give back later is of no use to it. No huge pages: the kernel would fill
 * with them what malloc_trim() has given back, 2 MiB around each page in use (measured: docs/design.md). */
void heap_keep_small(void);
