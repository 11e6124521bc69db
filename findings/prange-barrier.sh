#!/usr/bin/env bash
# Cython's prange: its generated loop waits for all threads twice, although it says `nowait`.
#
# Guess: `for i in prange(n, schedule="dynamic")` becomes one `parallel` region around one `for nowait`; the threads meet
# once, at the end of the region, as they do in the `#pragma omp parallel for` that one would write by hand.
# Found: Cython gives the index `firstprivate(i) lastprivate(i)`, and GCC has to keep a thread that copies the last value
# out from overtaking one that copies the first value in: it adds a barrier. The loop by hand has none.
# Nothing in Python code takes it away: an index that is not used after the loop has it too.
set -euo pipefail
command -v gcc >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet cython==3.3.1
cd "$work"
cat > loop.pyx <<'CYTHON'
from cython.parallel import prange

cdef extern from *:
    """
    static void work(long i) { (void)i; }
    """
    void work(long) nogil

def run(long n):
    cdef long i
    for i in prange(n, nogil=True, schedule="dynamic", chunksize=1):
        work(i)
CYTHON
cat > by_hand.c <<'C'
void work(long);

void run(long n)
{
#pragma omp parallel for schedule(dynamic, 1)
    for (long i = 0; i < n; i++)
        work(i);
}
C
venv/bin/cython -3 loop.pyx
headers=$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')
gcc -O2 -fopenmp -I"$headers" -c loop.c -o loop.o
gcc -O2 -fopenmp -c by_hand.c -o by_hand.o
venv/bin/cython --version
gcc --version | head -n 1
grep -m 1 '#pragma omp for' loop.c
for object in loop by_hand; do
    echo "$object: $(nm -u $object.o | grep -c GOMP_barrier || true) call of GOMP_barrier"
done
grep -q 'omp for nowait firstprivate(__pyx_v_i) lastprivate(__pyx_v_i)' loop.c
nm -u loop.o | grep -q GOMP_barrier
! nm -u by_hand.o | grep -q GOMP_barrier
# Seen:
# Cython version 3.3.1
# gcc (Debian 12.2.0-14+deb12u1) 12.2.0
# #pragma omp for nowait firstprivate(__pyx_v_i) lastprivate(__pyx_v_i) schedule(dynamic, __pyx_t_4)
# loop: 1 call of GOMP_barrier
# by_hand: 0 call of GOMP_barrier
