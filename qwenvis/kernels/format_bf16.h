/* Weights in bfloat16: multiplied as they are, or expanded for the f32 tile where the ISA cannot. */
#ifdef QV_BF16_DOT
#include "format_bf16_dot.h"
#else
#include "format_bf16_expand.h"
#endif
