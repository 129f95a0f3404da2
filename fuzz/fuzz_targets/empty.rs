//! Does nothing: what the other targets' speed is compared with.

#![cfg_attr(feature = "libfuzzer", no_main)]

notifreeze_fuzz::fuzz_program!(empty);
