/* A pool of threads that wait for loops: as many threads as the widest loop so far wanted, asleep between loops, never
 * ended.
 *
 * A loop is offered to all threads. A free thread takes a slot, whose number is the worker's, and then one task after
 * the other until none is left. The caller takes tasks too, so a loop ends even if no worker comes. Loops of several
 * callers share the threads. */
#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
typedef SRWLOCK qv_lock;
typedef CONDITION_VARIABLE qv_cond;
#define QV_LOCK SRWLOCK_INIT
#define QV_COND CONDITION_VARIABLE_INIT
#define qv_acquire AcquireSRWLockExclusive
#define qv_release ReleaseSRWLockExclusive
#define qv_broadcast WakeAllConditionVariable
#define qv_wait(cond, lock) SleepConditionVariableSRW(cond, lock, INFINITE, 0)
#else
#include <pthread.h>
typedef pthread_mutex_t qv_lock;
typedef pthread_cond_t qv_cond;
#define QV_LOCK PTHREAD_MUTEX_INITIALIZER
#define QV_COND PTHREAD_COND_INITIALIZER
#define qv_acquire pthread_mutex_lock
#define qv_release pthread_mutex_unlock
#define qv_broadcast pthread_cond_broadcast
#define qv_wait pthread_cond_wait
#endif

typedef struct qv_loop {
    qv_task task;
    const void *context;
    ptrdiff_t n, next; /* number of tasks; next task to take, atomic */
    int slots;         /* free slots; guarded by the lock, as all fields below */
    int next_slot;     /* number of the next worker; the caller is 0 */
    int running;       /* workers that take tasks */
    struct qv_loop *after;
} qv_loop;

static struct {
    qv_lock lock;
    qv_cond work, done;
    qv_loop *offered; /* loops with free slots, the newest first */
    int threads;
} qv_pool = {QV_LOCK, QV_COND, QV_COND, NULL, 0};

static void qv_take_tasks(qv_loop *loop, int worker)
{
    for (;;) {
        ptrdiff_t i = __atomic_fetch_add(&loop->next, 1, __ATOMIC_RELAXED);
        if (i >= loop->n)
            return;
        qv_run(loop->task, loop->context, i, worker);
    }
}

static void qv_withdraw(qv_loop *loop)
{
    for (qv_loop **at = &qv_pool.offered; *at; at = &(*at)->after)
        if (*at == loop) {
            *at = loop->after;
            return;
        }
}

static void qv_work(void)
{
    qv_acquire(&qv_pool.lock);
    for (;;) {
        qv_loop *loop = qv_pool.offered;
        if (!loop) {
            qv_wait(&qv_pool.work, &qv_pool.lock);
            continue;
        }
        int worker = loop->next_slot++;
        loop->running++;
        if (--loop->slots == 0)
            qv_withdraw(loop);
        qv_release(&qv_pool.lock);
        qv_take_tasks(loop, worker);
        qv_acquire(&qv_pool.lock);
        if (--loop->running == 0)
            qv_broadcast(&qv_pool.done);
    }
}

#define QV_STACK (1 << 20) /* bytes: a task keeps some tiles there, and some systems give 128 kB */
/* Start one more thread. Returns 0 if the system refuses. */
#ifdef _WIN32
static DWORD WINAPI qv_thread(void *nothing)
{
    (void)nothing;
    qv_work();
    return 0;
}

static int qv_start(void)
{
    HANDLE thread = CreateThread(NULL, QV_STACK, qv_thread, NULL, STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    return thread && CloseHandle(thread);
}
#else
static void *qv_thread(void *nothing)
{
    qv_work();
    return nothing;
}

static int qv_start(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes))
        return 0;
    pthread_attr_setstacksize(&attributes, QV_STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int failed = pthread_create(&thread, &attributes, qv_thread, NULL);
    pthread_attr_destroy(&attributes);
    return !failed;
}
#endif

/* Grow the pool. Returns the threads of the next loop, with the caller: `count`, or fewer where the system refuses. */
static int qv_pool_grow(int count)
{
    qv_acquire(&qv_pool.lock);
    while (qv_pool.threads < count - 1 && qv_start())
        qv_pool.threads++;
    if (count > qv_pool.threads + 1)
        count = qv_pool.threads + 1;
    qv_release(&qv_pool.lock);
    return count;
}

/* Run task(context, i, worker) for every i < n on `count` threads; a free thread takes the next task. */
static void qv_pool_run(qv_task task, const void *context, ptrdiff_t n, int count)
{
    qv_loop loop = {.task = task, .context = context, .n = n, .slots = count - 1, .next_slot = 1};
    qv_acquire(&qv_pool.lock);
    loop.after = qv_pool.offered;
    qv_pool.offered = &loop;
    qv_broadcast(&qv_pool.work);
    qv_release(&qv_pool.lock);
    qv_take_tasks(&loop, 0);
    qv_acquire(&qv_pool.lock);
    qv_withdraw(&loop);
    while (loop.running)
        qv_wait(&qv_pool.done, &qv_pool.lock);
    qv_release(&qv_pool.lock);
}
