/* Preloaded: pthread_create fails while MOST_THREADS threads are running that were started through it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

typedef struct {
    void *(*start)(void *);
    void *argument;
} work;

static int running; /* atomic */

static void *counted(void *given)
{
    work own = *(work *)given;
    free(given);
    void *result = own.start(own.argument);
    __atomic_fetch_sub(&running, 1, __ATOMIC_RELAXED);
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    const char *most = getenv("MOST_THREADS");
    work *given = malloc(sizeof *given);
    *given = (work){start, argument};
    if (__atomic_fetch_add(&running, 1, __ATOMIC_RELAXED) < (most ? atoi(most) : 1000000)) {
        int failed = real(thread, attributes, counted, given);
        if (!failed)
            return 0;
    }
    __atomic_fetch_sub(&running, 1, __ATOMIC_RELAXED);
    free(given);
    return EAGAIN;
}
