//! The process under test: a thin main over the `subject` crate.

fn main() {}
