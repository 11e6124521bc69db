# What the tasks of one loop find out together.

cdef extern from * nogil:
    """
    /* Workers may all do this at the same time. */
    static inline void qv_lower(int *flag) { __atomic_store_n(flag, 0, __ATOMIC_RELAXED); }
    """
    void lower "qv_lower"(int *flag)
