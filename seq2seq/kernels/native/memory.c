#include <limits.h>
#include <stdlib.h>

#ifdef __GLIBC__ /* known after the headers above */
#include <malloc.h>
#endif

/* Keep freed memory for the next update, which asks for as much: fresh pages have to be cleared. */
void keep_freed_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    mallopt(M_TOP_PAD, 64 << 20);
#endif
}
