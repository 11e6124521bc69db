/* The package's only parallel loop: piece(context, i, worker) for every i < n, on up to `count` threads, handed out as
 * they come free. OpenMP where the build has it; elsewhere a pool of our own (pool.h), because a second OpenMP runtime
 * beside PyTorch's ends the process on macOS, and does so on Windows where both are LLVM's. */
#include <stddef.h>

#include "fp_mode.h"

typedef void (*qv_piece)(const void *context, ptrdiff_t i, int worker);

static inline void qv_run(qv_piece piece, const void *context, ptrdiff_t i, int worker)
{
    qv_fp_mode before = qv_fp_mode_enter();
    piece(context, i, worker);
    qv_fp_mode_leave(before);
}

#ifdef _OPENMP
#include <omp.h>

static const int qv_openmp = _OPENMP;

static void qv_share(qv_piece piece, const void *context, ptrdiff_t n, int count)
{
#pragma omp parallel for schedule(dynamic, 1) num_threads(count)
    for (ptrdiff_t i = 0; i < n; i++)
        qv_run(piece, context, i, omp_get_thread_num());
}
#else
#include "pool.h"

static const int qv_openmp = 0;

static void qv_share(qv_piece piece, const void *context, ptrdiff_t n, int count)
{
    qv_loop loop = {.piece = piece, .context = context, .n = n, .seats = count - 1, .next_seat = 1};
    qv_pool_run(&loop);
}
#endif

static void qv_parallel_for(qv_piece piece, const void *context, ptrdiff_t n, int count)
{
    if (n < count)
        count = (int)n;
    if (count > 1)
        qv_share(piece, context, n, count);
    else
        for (ptrdiff_t i = 0; i < n; i++)
            qv_run(piece, context, i, 0);
}
