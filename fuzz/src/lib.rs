//! What the fuzz targets share: their bodies, the generator of groups, and the oracle.
//!
//! A body is one call of a `check_*` function that lives beside the code it checks. Only what is
//! about fuzzing and nothing else is here.

#![forbid(unsafe_code)]

mod oracle;
mod structured;
pub mod targets;

/// With the feature `libfuzzer`, a fuzz target for libFuzzer; without, a program that replays the
/// files named to it.
#[macro_export]
macro_rules! fuzz_program {
    ($name:ident) => {
        #[cfg(feature = "libfuzzer")]
        ::libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::targets::$name(input));

        #[cfg(not(feature = "libfuzzer"))]
        fn main() -> ::std::io::Result<()> {
            $crate::replay($crate::targets::$name)
        }
    };
}

/// Runs a target on every file named on the command line; a target that fails panics.
///
/// # Errors
///
/// A file that cannot be read.
pub fn replay(target: fn(&[u8])) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        target(&std::fs::read(path)?);
    }
    Ok(())
}
