/* Tasks and threads of the parallel loop in runtime.pyx. The threads are OpenMP's where the build has OpenMP. Elsewhere
 * they come from a pool of our own, because a second OpenMP runtime beside PyTorch's ends the process on macOS, and on
 * Windows if both are LLVM's. */
#include <stddef.h>

#include "fp_mode.h"

typedef void (*qv_task)(const void *context, ptrdiff_t i, int worker);

static inline void qv_run(qv_task task, const void *context, ptrdiff_t i, int worker)
{
    qv_fp_mode before = qv_fp_mode_enter();
    task(context, i, worker);
    qv_fp_mode_leave(before);
}

#include "pool.h"

#ifdef _OPENMP
#include "team.h"
static const int qv_openmp = _OPENMP;
static inline int qv_granted(int count) { return qv_team(count); }
#else
static const int qv_openmp = 0;
static inline int qv_granted(int count) { return qv_pool_grow(count); }
#endif
