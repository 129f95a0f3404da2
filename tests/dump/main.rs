//! The command `dump` of a living process, where it does not go well.

mod failed;
mod killed;
mod parked;
mod subject;
mod trace;

const NOTIFREEZE: &str = env!("CARGO_BIN_EXE_notifreeze");
