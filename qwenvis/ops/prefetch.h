/* Prefetch `lines` cache lines from an address on: a hint that cannot fault, so the address may be out of bounds. */
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
