# A flag that the tasks of one loop share.

cdef extern from * nogil:
    """
    /* Several workers may lower the flag at the same time. */
    static inline void qv_lower(int *flag) { __atomic_store_n(flag, 0, __ATOMIC_RELAXED); }
    """
    void lower "qv_lower"(int *flag)
