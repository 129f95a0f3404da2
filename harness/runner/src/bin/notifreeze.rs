//! The `notifreeze` command.

fn main() {}
