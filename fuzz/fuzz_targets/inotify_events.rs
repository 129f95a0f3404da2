//! Any buffer of inotify events.

#![cfg_attr(feature = "libfuzzer", no_main)]

notifreeze_fuzz::fuzz_program!(inotify_events);
