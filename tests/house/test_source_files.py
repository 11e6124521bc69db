"""What `sources` says of a source file: the sizes of functions, the symbols of C."""

from house import source_files


def test_functions_are_measured():
    python = '''class A:
    def f(self, a, b=1, *c, d, **e):
        """Says.

        More.
        """
        return a
'''
    cython = '''cdef enum:
    N = 1

cdef inline void f(const float[:, ::1] x, int (*g)(int, int), int n,
                   int m) noexcept nogil:
    x

    y

def h(x, *, y=(1, 2)):
    """One.
    Two."""
    z
'''
    assert source_files.python_functions(python) == [source_files.Function("f", 2, 2)]
    assert source_files.cython_functions(cython) == [source_files.Function("f", 5, 4), source_files.Function("h", 2, 1)]


def test_functions_of_javascript_are_measured():
    text = """export class A {
  get f() {
    if (x) {
      return 1;
    }
  }

  static async g(a, [b, c], d) {
    return a;
  }
}

export async function h({ a, b }, c) {
  return c;
}
"""
    expected = [source_files.Function("f", 5, 0), source_files.Function("g", 3, 3), source_files.Function("h", 3, 2)]
    assert source_files.javascript_functions(text) == expected


def test_c_declarations_are_read():
    text = """
/* int comment(void) { */
#define MAKE(name) \\
    int name(void) { return 0; }
typedef struct { int x; } qv_t;
enum { A = 1, B };
INLINE int helper(int x)
{
    return x; /* ; */
}
MAKE(one) MAKE(two)
static const char *words[] = {"a;{", "b"};
__attribute__((noinline)) int open_(int x) { return x; }
const qv_t table = {.x = 1};
extern const qv_t qv_a, qv_b;
void later(const float *x);
"""
    assert source_files.external_symbols(text, frozenset({"INLINE"})) == ["open_", "table", "qv_a", "qv_b", "later"]
    bodies = [(source_files.name_of(h), n) for h, n in source_files.c_declarations(text) if n]
    assert bodies == [
        ("helper", 4),
        ("open_", 1),
    ]
