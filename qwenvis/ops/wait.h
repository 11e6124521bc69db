/* Waiting, on every system: a lock, conditions, a clock, and a spin that ends soon. */
#include <stdint.h>
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
#define qv_signal WakeConditionVariable
#define qv_broadcast WakeAllConditionVariable
#define qv_wait(cond, lock) SleepConditionVariableSRW(cond, lock, INFINITE, 0)
static inline int64_t qv_now(void)
{
    LARGE_INTEGER count, second;
    QueryPerformanceCounter(&count);
    QueryPerformanceFrequency(&second);
    int64_t seconds = count.QuadPart / second.QuadPart, rest = count.QuadPart % second.QuadPart;
    return seconds * 1000000000 + rest * 1000000000 / second.QuadPart;
}
#else
#include <pthread.h>
#include <time.h>
typedef pthread_mutex_t qv_lock;
typedef pthread_cond_t qv_cond;
#define QV_LOCK PTHREAD_MUTEX_INITIALIZER
#define QV_COND PTHREAD_COND_INITIALIZER
#define qv_acquire pthread_mutex_lock
#define qv_release pthread_mutex_unlock
#define qv_signal pthread_cond_signal
#define qv_broadcast pthread_cond_broadcast
#define qv_wait pthread_cond_wait
static inline int64_t qv_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)1000000000 + now.tv_nsec;
}
#endif

#if defined(__x86_64__)
#define qv_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define qv_pause() __asm__ volatile("isb")
#else
#define qv_pause() ((void)0)
#endif

/* Spin while a condition holds, until the time `end` in nanoseconds at the latest. */
#define qv_spin_while(condition, end)                                                                                  \
    for (int qv_spins = 0; (condition) && (qv_spins % 8 || qv_now() < (end)); qv_spins++)                              \
    qv_pause()
