/* How many threads OpenMP may be asked for. libgomp ends the process where the system refuses one, so a team that has
 * to grow is tried first: the threads that it lacks are started, all at once, and ended, and the loop goes on with as
 * many as there were. */
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

/* OpenMP keeps a team for each thread that calls: threads of this one's last loop, and the most that it may have. */
static _Thread_local int qv_team_size = 1, qv_team_most = INT_MAX;
/* One team grows at a time, or two would count on the same threads. */
static pthread_mutex_t qv_team_lock = PTHREAD_MUTEX_INITIALIZER;

/* Bytes that an environment variable asks for, as a number of B, K, M or G, or of K; 0 where it is not that. */
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

/* A thread waits until the gate opens, so that all are there at once; it returns its number. */
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

/* A thread that has been joined may count a little longer against what the system grants. */
static void qv_team_farewell(pthread_t thread)
{
    void *number;
    pthread_join(thread, &number);
#ifdef __linux__
    const struct timespec moment = {0, 100000}; /* nanoseconds: on a busy machine it takes its time to go */
    for (int i = 0; i < 1000 && !syscall(SYS_tgkill, getpid(), (pid_t)(intptr_t)number, 0); i++)
        nanosleep(&moment, NULL);
#endif
}

/* Start `count` threads as OpenMP would, and end them; how many there were. */
static int qv_team_try(int count)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attributes;
    pthread_t *threads = malloc((size_t)count * sizeof *threads);
    int started = 0;
    if (threads && !pthread_attr_init(&attributes)) {
        size_t stack = qv_bytes_of("OMP_STACKSIZE");
        if (stack || (stack = qv_bytes_of("GOMP_STACKSIZE")))
            pthread_attr_setstacksize(&attributes, stack); /* else, and where it refuses, the system's */
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

/* The threads of the next loop, of `count` that are wanted. They are started here. */
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
        __asm__ volatile(""); /* or a compiler removes it */
        pthread_mutex_unlock(&qv_team_lock);
    }
    if (count > 1)
        qv_team_size = count;
    return count;
}
