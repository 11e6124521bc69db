/* The floating-point mode of a thread. Results must not depend on the flush-to-zero or rounding mode of the caller. */
#if defined(__x86_64__)
#include <xmmintrin.h>
typedef unsigned int qv_fp_mode;
static inline qv_fp_mode qv_fp_mode_enter(void)
{
    qv_fp_mode before = _mm_getcsr();
    _mm_setcsr(0x1F80); /* the default: round to nearest, subnormals kept, no traps */
    return before;
}
static inline void qv_fp_mode_leave(qv_fp_mode before) { _mm_setcsr(before); }
#elif defined(__aarch64__)
#include <stdint.h>
typedef uint64_t qv_fp_mode;
static inline qv_fp_mode qv_fp_mode_enter(void)
{
    qv_fp_mode before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return before;
}
static inline void qv_fp_mode_leave(qv_fp_mode before) { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#else
typedef int qv_fp_mode;
static inline qv_fp_mode qv_fp_mode_enter(void) { return 0; }
static inline void qv_fp_mode_leave(qv_fp_mode before) { (void)before; }
#endif
