/* Opens the region of a file that may use QV_TARGET's instructions; isa.h closes it. System headers come before. */
#ifdef QV_EMULATED /* the tests compile every set for the CPU that they run on: tests/kernels/emulated.h */
#undef QV_TARGET
#endif
#ifdef QV_TARGET
#define QV_PRAGMA_(text) _Pragma(#text)
#define QV_PRAGMA(text) QV_PRAGMA_(text)
#ifdef __clang__
QV_PRAGMA(clang attribute push(__attribute__((target(QV_TARGET))), apply_to = function))
#else
QV_PRAGMA(GCC target(QV_TARGET))
#endif
#endif
