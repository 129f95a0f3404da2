//! The process under test.

#![forbid(unsafe_code)]
