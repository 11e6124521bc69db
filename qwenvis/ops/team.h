/* Threads of the pool, started by OpenMP: teams of parallel regions, which never end. OpenMP's variables thus
 * bind the threads to CPUs and set the size of their stacks, while the pool decides how they wait.
 *
 * The thread that enters the region belongs to the team, and is started first. libgomp ends the process where the
 * system refuses a thread. So before a team is started, as many threads are started, all at the same time, and ended;
 * the team then has as many threads as the system granted. */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

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

/* Start a thread with a stack of OpenMP's size. Returns whether the system grants it. */
static int qv_team_create(pthread_t *thread, void *(*run)(void *), void *argument)
{
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes))
        return 0;
    size_t stack = qv_bytes_of("OMP_STACKSIZE");
    if (stack || (stack = qv_bytes_of("GOMP_STACKSIZE")))
        pthread_attr_setstacksize(&attributes, stack); /* else, or if the size is refused, the system's */
    int failed = pthread_create(thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    return !failed;
}

/* Wait until the gate opens, so that all threads exist at the same time; returns the number of the thread. */
static void *qv_team_wait_at_gate(void *gate)
{
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
#ifdef __linux__
    return (void *)(intptr_t)syscall(SYS_gettid);
#else
    return NULL;
#endif
}

/* Join a thread, and wait for the moment, a little later, at which the system no longer counts the thread. */
static void qv_team_join(pthread_t thread)
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
static int qv_team_rehearse(int count)
{
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_t *threads = malloc((size_t)count * sizeof *threads);
    int started = 0;
    pthread_mutex_lock(&gate);
    while (threads && started < count && qv_team_create(threads + started, qv_team_wait_at_gate, &gate))
        started++;
    pthread_mutex_unlock(&gate);
    for (int i = 0; i < started; i++)
        qv_team_join(threads[i]);
    free(threads);
    return started;
}

/* A team to start, and its threads so far. */
typedef struct {
    qv_region region;
    int size, present, idle;
} qv_team;

/* Be thread `index` of a team, in its region. */
static void qv_team_member(void *given, int index)
{
    qv_team *team = given;
    int idle = index < team->idle;
    qv_acquire(&qv_pool.lock);
    team->size = omp_get_num_threads(); /* fewer than there should be, if OpenMP has a limit */
    if (++team->present == team->size)
        qv_broadcast(&qv_pool.done);
    qv_release(&qv_pool.lock); /* from here on `team` may be gone */
    if (!idle)
        qv_work();
    for (;;)
        pause();
}

static void *qv_team_enter(void *given)
{
    qv_team *team = given;
    omp_set_dynamic(0); /* or the load of this moment would decide */
    team->region(qv_team_member, team, team->size);
    return NULL;
}

/* Return the most threads that OpenMP's variables allow, with the caller. */
static int qv_limit(void) { return omp_get_max_active_levels() ? omp_get_thread_limit() : 1; }

/* Start up to `count` threads as the team of a region; fewer where the system refuses. If OpenMP binds threads, the
 * first of a team are idle: they have the CPUs of the caller and of the threads before. */
static void qv_start_threads(int count, qv_region region)
{
    int idle = omp_get_proc_bind() == omp_proc_bind_false ? 0 : 1 + qv_get(qv_pool.threads);
    qv_team team = {region, qv_team_rehearse(count + idle), 0, idle};
    pthread_t first;
    if (team.size <= idle || !qv_team_create(&first, qv_team_enter, &team))
        return;
    pthread_detach(first);
    qv_acquire(&qv_pool.lock);
    while (team.present != team.size)
        qv_wait(&qv_pool.done, &qv_pool.lock);
    qv_release(&qv_pool.lock);
    qv_add(qv_pool.threads, team.size - idle);
}
