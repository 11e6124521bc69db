/* Tasks and threads of the parallel loop in runtime.pyx: a pool, whose threads OpenMP starts if the build has OpenMP.
 * Elsewhere the pool starts them itself, because a second OpenMP runtime beside PyTorch's ends the process on macOS,
 * and on Windows if both are LLVM's. */
#include <stddef.h>

#include "fp_mode.h"
#include "signal_mask.h"

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

static int qv_cpus = 1; /* of the machine */

static inline int qv_min(int a, int b) { return a < b ? a : b; }

/* Return the number of threads that the pool needs for a loop with `slots`: loops that run at the same time have
 * workers of their own while there are CPUs for them. */
static int qv_needed(int slots)
{
    return slots < qv_cpus ? qv_min(slots + qv_get(qv_pool.slots), qv_cpus - 1) : slots;
}

/* Return the threads of the next loop, with the caller: `count`, or fewer where OpenMP or the system has a limit. */
static int qv_granted(int count, qv_region region)
{
    int limit = qv_limit();
    int needed = qv_min(qv_needed(count - 1), limit - 1);
    if (qv_get(qv_pool.threads) < needed) {
        qv_acquire(&qv_pool.growth);
        int missing = needed - qv_get(qv_pool.threads);
        if (missing > 0 && qv_now() >= qv_pool.next_start) {
            qv_signal_mask before = qv_signals_block();
            qv_start_threads(missing, region);
            qv_signals_restore(before);
            if (qv_get(qv_pool.threads) < needed)
                qv_pool.next_start = qv_now() + QV_RETRY;
        }
        qv_release(&qv_pool.growth);
    }
    return qv_min(qv_min(count, limit), qv_get(qv_pool.threads) + 1);
}
