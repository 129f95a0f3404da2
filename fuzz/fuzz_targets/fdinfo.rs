//! Any text of fdinfo, whole and in pieces.

#![cfg_attr(feature = "libfuzzer", no_main)]

notifreeze_fuzz::fuzz_program!(fdinfo);
