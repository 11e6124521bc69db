/* A pool of threads that wait for loops: as many threads as the widest loop so far wanted, never ended.
 *
 * A loop is offered to all threads. A free thread joins it as one of its workers, and then takes one task after the
 * other until none is left. The caller takes tasks too, so a loop ends even if no worker comes; at its end the caller
 * waits for the workers that have come. Loops of several callers share the threads.
 *
 * Whoever waits spins for QV_SPIN, so that no thread has to be woken while one op follows the other, and then sleeps.
 * Beside busy programs, a thread that spun for longer would use up its share of a CPU while it waits for a thread that
 * has none. */
#include "wait.h"

#define QV_SPIN 150000 /* nanoseconds: tuned by benchmarks.busy, since the end of a loop waits for a last task */
#define QV_RETRY 1000000000 /* nanoseconds until the system is asked again for threads that it has refused */
#ifndef QV_LOOPS
#define QV_LOOPS 64 /* loops at the same time; any further caller has no workers */
#endif

/* One of the loops. Its memory is never freed: a late worker that looks at it finds no free slot, or the next loop. */
typedef struct {
    _Alignas(64) ptrdiff_t next; /* the next task to take, atomic as all fields up to `awaited` */
    _Alignas(64) int free;       /* slots that are left, from 1 on: the worker in slot k is worker k, the caller is 0 */
    int done;                    /* workers that have left */
    int awaited;                 /* workers whose end the sleeping caller awaits; 0 if it does not sleep */
    int taken;                   /* whether the loop has a caller */
    qv_task task;                /* constant while a slot is free or a worker present, as `context` and `n` */
    const void *context;
    ptrdiff_t n; /* number of tasks */
} qv_loop;

static struct {
    qv_lock growth, lock;
    qv_cond offered, done;
    int64_t next_start; /* the time before which no thread is started; guarded by `growth` */
    int threads;        /* atomic, as all fields below */
    int asleep;         /* threads that have to be woken */
    unsigned offers;    /* so far */
    int slots;          /* of the loops that are running, taken or free */
    qv_loop loops[QV_LOOPS];
} qv_pool = {.growth = QV_LOCK, .lock = QV_LOCK, .offered = QV_COND, .done = QV_COND};

#define qv_get(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)
#define qv_set(field, value) __atomic_store_n(&(field), value, __ATOMIC_SEQ_CST)
#define qv_swap(field, value) __atomic_exchange_n(&(field), value, __ATOMIC_SEQ_CST)
#define qv_add(field, value) __atomic_fetch_add(&(field), value, __ATOMIC_SEQ_CST)

static void qv_take_tasks(qv_loop *loop, int worker)
{
    for (;;) {
        ptrdiff_t i = __atomic_fetch_add(&loop->next, 1, __ATOMIC_RELAXED);
        if (i >= loop->n)
            return;
        qv_run(loop->task, loop->context, i, worker);
    }
}

/* Take a free slot of the loop, if there is one, and tasks. Returns whether there was one. */
static int qv_join(qv_loop *loop)
{
    int worker = qv_get(loop->free) > 0 ? qv_add(loop->free, -1) : 0;
    if (worker <= 0)
        return 0;
    qv_take_tasks(loop, worker);
    if (qv_add(loop->done, 1) + 1 == qv_get(loop->awaited)) {
        qv_acquire(&qv_pool.lock); /* or the caller would miss it between its last look and its sleep */
        qv_broadcast(&qv_pool.done);
        qv_release(&qv_pool.lock);
    }
    return 1;
}

/* Sleep until there is a loop that was not among the `offers`. */
static void qv_sleep(unsigned offers)
{
    qv_acquire(&qv_pool.lock);
    qv_add(qv_pool.asleep, 1);
    while (qv_get(qv_pool.offers) == offers)
        qv_wait(&qv_pool.offered, &qv_pool.lock);
    qv_add(qv_pool.asleep, -1);
    qv_release(&qv_pool.lock);
}

/* The life of a thread of the pool. It spins only after work: others' loops do not keep it awake. */
static void qv_work(void)
{
    for (int64_t end = 0;;) {
        unsigned offers = qv_get(qv_pool.offers);
        int joined = 0;
        for (int i = 0; i < QV_LOOPS; i++)
            joined += qv_join(qv_pool.loops + i);
        if (joined)
            end = qv_now() + QV_SPIN;
        qv_spin_while(qv_get(qv_pool.offers) == offers, end);
        if (qv_get(qv_pool.offers) == offers)
            qv_sleep(offers);
    }
}

static void qv_offer(qv_loop *loop, int slots)
{
    qv_set(loop->free, slots);
    qv_add(qv_pool.offers, 1);
    int asleep = qv_get(qv_pool.asleep);
    if (!asleep)
        return;
    qv_acquire(&qv_pool.lock); /* whoever is counted as asleep waits by now */
    qv_release(&qv_pool.lock);
    if (asleep <= slots)
        qv_broadcast(&qv_pool.offered);
    else
        for (int i = 0; i < slots; i++)
            qv_signal(&qv_pool.offered);
}

/* Wait until `joined` workers have left the loop. */
static void qv_await(qv_loop *loop, int joined)
{
    int64_t end = qv_get(loop->done) == joined ? 0 : qv_now() + QV_SPIN;
    qv_spin_while(qv_get(loop->done) != joined, end);
    if (qv_get(loop->done) == joined)
        return;
    qv_acquire(&qv_pool.lock);
    qv_set(loop->awaited, joined);
    while (qv_get(loop->done) != joined)
        qv_wait(&qv_pool.done, &qv_pool.lock);
    qv_release(&qv_pool.lock);
}

static qv_loop *qv_take_loop(void)
{
    for (int i = 0; i < QV_LOOPS; i++)
        if (!qv_get(qv_pool.loops[i].taken) && !qv_swap(qv_pool.loops[i].taken, 1))
            return qv_pool.loops + i;
    return NULL;
}

/* Run task(context, i, worker) for every i < n on at most `count` threads; a free thread takes the next task. */
static void qv_pool_run(qv_task task, const void *context, ptrdiff_t n, int count)
{
    qv_loop *loop = count > 1 ? qv_take_loop() : NULL;
    if (!loop) {
        for (ptrdiff_t i = 0; i < n; i++)
            qv_run(task, context, i, 0);
        return;
    }
    int slots = (n < count ? (int)n : count) - 1;
    loop->next = loop->done = 0;
    qv_set(loop->awaited, 0); /* which a worker of the loop before may still read */
    loop->task = task;
    loop->context = context;
    loop->n = n;
    qv_add(qv_pool.slots, slots);
    qv_offer(loop, slots);
    qv_take_tasks(loop, 0);
    int unused = qv_swap(loop->free, 0);
    qv_await(loop, slots - (unused > 0 ? unused : 0));
    qv_add(qv_pool.slots, -slots);
    qv_set(loop->taken, 0);
}
