//! Loops compiled for what this processor has; the program stays portable.

use pulp::{Simd, WithSimd};

/// Work for one of `pulp`'s instruction sets.
struct Task<F>(F);

impl<T, F: FnOnce() -> T> WithSimd for Task<F> {
    type Output = T;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> T {
        (self.0)()
    }
}

/// Runs `work` compiled for the best instruction set; the compiler vectorises the loops inside.
#[inline(always)]
pub(crate) fn vectorised<T>(work: impl FnOnce() -> T) -> T {
    pulp::Arch::new().dispatch(Task(work))
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{avx2, with};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Task;
    use pulp::{Simd, x86::V3};
    use std::sync::LazyLock;

    /// AVX2, if this processor has it.
    pub(crate) fn avx2() -> Option<V3> {
        static FOUND: LazyLock<Option<V3>> = LazyLock::new(V3::try_new);
        *FOUND
    }

    /// Runs `work` compiled for AVX2.
    #[inline(always)]
    pub(crate) fn with<T>(simd: V3, work: impl FnOnce() -> T) -> T {
        Simd::vectorize(simd, Task(work))
    }
}
