/* What the instruction sets of NEON share: its registers, and how a system tells what its CPU has.
 *
 * QV_CPU_HAS(word, bit, feature): on Linux a bit of a word of getauxval, as numbers, because old headers lack the names
 * of bits; on macOS a name of sysctl. No way to ask is known elsewhere. */
#include <arm_neon.h>

#if defined(__linux__)
#include <sys/auxv.h>
#define QV_CPU_HAS(word, bit, feature) (getauxval(word) >> (bit) & 1)
#elif defined(__APPLE__)
#include <sys/sysctl.h>
static inline int answers_yes(const char *feature)
{
    int has = 0;
    size_t size = sizeof has;
    return sysctlbyname(feature, &has, &size, NULL, 0) == 0 && has;
}
#define QV_CPU_HAS(word, bit, feature) answers_yes("hw.optional.arm." feature)
#else
#define QV_CPU_HAS(word, bit, feature) 0
#endif

#define QV_MAX(a, b) vmaxq_f32(a, b)
#define QV_MIN(a, b) vminq_f32(a, b)
#define VL 4
#define MR 8 /* 16 accumulators, 2 of B, 8 of A, which GCC loads ahead: 26 of 32 registers */
#define ROWS_NBYTES (256 << 10) /* half of the L2 of a Cortex-A72 or a Neoverse N1; not measured */
