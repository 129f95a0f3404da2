//! A group that a kernel could have, and one change of its text.

#![cfg_attr(feature = "libfuzzer", no_main)]

notifreeze_fuzz::fuzz_program!(fdinfo_structured);
