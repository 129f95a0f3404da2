//! Any log of a subject, of which the transcript is made.

#![cfg_attr(feature = "libfuzzer", no_main)]

notifreeze_fuzz::fuzz_program!(transcript);
