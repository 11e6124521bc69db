/* The list of number formats, the most precise first: a new one is a line here.
 *
 * A format is a struct that ends its file, with LAST_FORMAT as the one before it; then it is the last itself. */
#define LAST_FORMAT NULL
#include "format_f32.h"
#include "format_bf16.h"
#include "format_i8.h"
