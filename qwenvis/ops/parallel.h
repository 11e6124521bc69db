/* Tasks and threads of the parallel loop in runtime.pyx: a pool, whose threads OpenMP starts if the build has OpenMP.
 * Elsewhere the pool starts them itself, because a second OpenMP runtime beside PyTorch's ends the process on macOS,
 * and on Windows if both are LLVM's. */
#include <stddef.h>

#include "fp_mode.h"

typedef void (*qv_task)(const void *context, ptrdiff_t i, int worker);

/* A parallel region: run member(team, index) on the threads 0 .. size-1 of a team. */
typedef void (*qv_member)(void *team, int index);
typedef void (*qv_region)(qv_member member, void *team, int size);

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
#else
#include "threads.h"
static const int qv_openmp = 0;
#endif

/* Return the threads of the next loop, with the caller: `count`, or fewer where the system refuses to start them. */
static int qv_granted(int count, qv_region region)
{
    if (qv_get(qv_pool.threads) < count - 1) {
        qv_acquire(&qv_pool.growth);
        int missing = count - 1 - qv_get(qv_pool.threads);
        if (missing > 0 && qv_now() >= qv_pool.patience) {
            qv_start_threads(missing, region);
            if (qv_get(qv_pool.threads) < count - 1)
                qv_pool.patience = qv_now() + QV_PATIENCE;
        }
        qv_release(&qv_pool.growth);
    }
    int most = qv_get(qv_pool.threads) + 1;
    return count < most ? count : most;
}
