/* The signals that a thread blocks; new threads inherit them. The threads of the pool block all signals except faults,
 * which faulthandler reports. A signal that all threads of Python block, to wait for it with sigwait, would otherwise
 * end the process on a thread of the pool. */
#ifdef _WIN32
typedef int qv_signal_mask;
static inline qv_signal_mask qv_signals_block(void) { return 0; }
static inline void qv_signals_restore(qv_signal_mask before) { (void)before; }
#else
#include <pthread.h>
#include <signal.h>
typedef sigset_t qv_signal_mask;
static inline qv_signal_mask qv_signals_block(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    sigset_t signals, before;
    sigfillset(&signals);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&signals, faults[i]);
    pthread_sigmask(SIG_BLOCK, &signals, &before);
    return before;
}
static inline void qv_signals_restore(qv_signal_mask before) { pthread_sigmask(SIG_SETMASK, &before, NULL); }
#endif
