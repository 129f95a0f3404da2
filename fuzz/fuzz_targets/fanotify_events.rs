//! Any buffer of fanotify events.

#![cfg_attr(feature = "libfuzzer", no_main)]

notifreeze_fuzz::fuzz_program!(fanotify_events);
