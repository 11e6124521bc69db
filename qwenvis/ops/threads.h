/* Threads of the pool, started one by one. */
#include <limits.h>

#define QV_STACK (1 << 20) /* bytes: a task keeps some tiles there, and some systems give 128 kB */
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

static int qv_limit(void) { return INT_MAX; }

/* Start up to `count` threads; fewer where the system refuses. */
static void qv_start_threads(int count, qv_region region)
{
    (void)region;
    for (int i = 0; i < count && qv_start(); i++)
        qv_add(qv_pool.threads, 1);
}
