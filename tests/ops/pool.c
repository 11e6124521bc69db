/* Loops of several callers at the same time, fewer records than callers: every task runs once, on a worker of its own,
 * and whoever sleeps wakes. Compiled with a sanitizer, which finds races. */
#define QV_LOOPS 2
#include <stdio.h>

#include "parallel.h"

enum { CALLERS = 4, ROUNDS = 3000, TASKS = 9, THREADS = 4, PAUSES = 100, SLOW = -1 };

typedef struct {
    int round; /* a pause is every PAUSES rounds, and in every task if SLOW */
    int runs[TASKS], total[THREADS]; /* runs of each task; tasks of each worker, which alone changes its number */
} work;

/* Sleep for longer than threads spin. */
static void pause_for_sleep(void) { nanosleep(&(struct timespec){0, 2 * QV_SPIN}, NULL); }

static void count(const void *context, ptrdiff_t i, int worker)
{
    work *own = (work *)context;
    if (own->round == SLOW || (own->round % PAUSES == 1 && worker)) /* then the caller has to wait */
        pause_for_sleep();
    own->runs[i]++;
    own->total[worker]++;
}

static void *caller(void *failures)
{
    for (int round = 0; round < ROUNDS; round++) {
        work own = {.round = round};
        int tasks = 1 + round % TASKS, total = 0;
        if (round % PAUSES == 0) /* the workers fall asleep */
            pause_for_sleep();
        qv_pool_run(count, &own, tasks, qv_granted(2 + round % (THREADS - 1), NULL));
        for (int i = 0; i < TASKS; i++)
            if (own.runs[i] != (i < tasks))
                __atomic_fetch_add((int *)failures, 1, __ATOMIC_RELAXED);
        for (int i = 0; i < THREADS; i++)
            total += own.total[i];
        if (total != tasks)
            __atomic_fetch_add((int *)failures, 1, __ATOMIC_RELAXED);
    }
    return NULL;
}

/* Whether sleeping workers wake: loops whose tasks take so long that one of many must get help. */
static int helped(void)
{
    for (int round = 0; round < ROUNDS; round++) {
        work own = {.round = SLOW};
        nanosleep(&(struct timespec){0, 20 * QV_SPIN}, NULL);
        qv_pool_run(count, &own, TASKS, THREADS);
        if (own.total[0] < TASKS)
            return 1;
    }
    return 0;
}

int main(void)
{
    pthread_t callers[CALLERS];
    int failures = 0;
    for (int i = 0; i < CALLERS; i++)
        if (pthread_create(callers + i, NULL, caller, &failures))
            return 2;
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    failures += !helped();
    printf("%d failures\n", failures);
    return failures != 0;
}
