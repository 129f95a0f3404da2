//! The reader of fdinfo against an independent reading by regular expressions.

#![cfg_attr(feature = "libfuzzer", no_main)]

notifreeze_fuzz::fuzz_program!(fdinfo_oracle);
