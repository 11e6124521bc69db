/* Prefetch `lines` cache lines from an address on, to read them or to write to them: a hint that cannot fault, so the
 * address may be out of bounds. */
#define QV_CACHE_LINE 64 /* bytes */

static inline void qv_prefetch(const char *address, Py_ssize_t lines)
{
    for (Py_ssize_t i = 0; i < lines; i++)
        __builtin_prefetch(address + QV_CACHE_LINE * i);
}

/* The same into L2, for lines in memory: L1 has few places for lines that it waits for, and a tile needs these. */
static inline void qv_prefetch_far(const char *address, Py_ssize_t lines)
{
    for (Py_ssize_t i = 0; i < lines; i++)
        __builtin_prefetch(address + QV_CACHE_LINE * i, 0, 2);
}

static inline void qv_prefetch_to_write(const char *address, Py_ssize_t lines)
{
    for (Py_ssize_t i = 0; i < lines; i++)
#ifdef __x86_64__ /* GCC knows the instruction only with a flag; a CPU without it does nothing */
        __asm__ volatile("prefetchw %0" : : "m"(address[QV_CACHE_LINE * i]));
#else
        __builtin_prefetch(address + QV_CACHE_LINE * i, 1);
#endif
}
