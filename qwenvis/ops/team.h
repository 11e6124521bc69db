/* The number of threads that OpenMP can start. libgomp ends the process where the system refuses a thread. So before a
 * team grows, the threads that it lacks are started, all at the same time, and ended; the loop then runs on as many
 * threads as the system granted. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

/* OpenMP keeps a team for each calling thread: the threads of its last loop, and the most that it may have. */
static _Thread_local int qv_team_size = 1, qv_team_most = INT_MAX;
/* Teams grow one at a time, or two teams would count on the same threads. */
static pthread_mutex_t qv_team_lock = PTHREAD_MUTEX_INITIALIZER;

/* Bytes in an environment variable: a number followed by B, K, M, G or nothing (K). 0 if the variable is not so. */
static size_t qv_bytes_of(const char *name)
{
    static const char units[] = "bkmg";
    const char *text = getenv(name), *unit;
    char *end;
    if (!text)
        return 0;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 10);
    if (end == text || errno)
        return 0;
    while (isspace((unsigned char)*end))
        end++;
    int shift = 10;
    if (*end && (unit = strchr(units, tolower((unsigned char)*end)))) {
        shift = 10 * (int)(unit - units);
        end++;
    }
    while (isspace((unsigned char)*end))
        end++;
    return *end || number > SIZE_MAX >> shift ? 0 : (size_t)number << shift;
}

/* Wait until the gate opens, so that all threads exist at the same time; returns the number of the thread. */
static void *qv_team_guest(void *gate)
{
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
#ifdef __linux__
    return (void *)(intptr_t)syscall(SYS_gettid);
#else
    return NULL;
#endif
}

/* Join a thread, and wait until the system no longer counts it: that may take a little longer. */
static void qv_team_farewell(pthread_t thread)
{
    void *number;
    pthread_join(thread, &number);
#ifdef __linux__
    const struct timespec moment = {0, 100000}; /* nanoseconds, up to a thousand times: machines may be busy */
    for (int i = 0; i < 1000 && !syscall(SYS_tgkill, getpid(), (pid_t)(intptr_t)number, 0); i++)
        nanosleep(&moment, NULL);
#endif
}

/* Start `count` threads as OpenMP would, and end them. Returns how many started. */
static int qv_team_try(int count)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attributes;
    pthread_t *threads = malloc((size_t)count * sizeof *threads);
    int started = 0;
    if (threads && !pthread_attr_init(&attributes)) {
        size_t stack = qv_bytes_of("OMP_STACKSIZE");
        if (stack || (stack = qv_bytes_of("GOMP_STACKSIZE")))
            pthread_attr_setstacksize(&attributes, stack); /* else, or if the size is refused, the system's */
        pthread_mutex_lock(&gate);
        while (started < count && !pthread_create(threads + started, &attributes, qv_team_guest, &gate))
            started++;
        pthread_mutex_unlock(&gate);
        pthread_attr_destroy(&attributes);
    }
    for (int i = 0; i < started; i++)
        qv_team_farewell(threads[i]);
    free(threads);
    return started;
}

/* Start the threads of the next loop. Returns their number: `count`, or fewer. */
static int qv_team(int count)
{
    if (count > qv_team_most)
        count = qv_team_most;
    if (count > qv_team_size) {
        pthread_mutex_lock(&qv_team_lock);
        int size = qv_team_size + qv_team_try(count - qv_team_size);
        if (size < count)
            count = qv_team_most = size;
#pragma omp parallel num_threads(count)
        __asm__ volatile(""); /* or the compiler removes the empty loop */
        pthread_mutex_unlock(&qv_team_lock);
    }
    if (count > 1)
        qv_team_size = count;
    return count;
}
