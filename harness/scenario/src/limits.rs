//! Limits of the language, each with its reason. A text beyond one is a [`crate::Problem`].

/// Bytes of a scenario: 16,384 steps of 64 bytes, and more than any person reads.
pub const MAX_TEXT: usize = 1 << 20;
/// Steps: enough for 1,000 watches, each with its file and its event, written out.
pub const MAX_STEPS: usize = 16_384;
/// Checkpoints, each of which is a dump, a kill and a restore.
pub const MAX_CHECKPOINTS: usize = 64;
/// Child processes: each is a process that has to be dumped.
pub const MAX_PROCESSES: usize = 16;
/// Bytes of a path: `PATH_MAX` counts the NUL.
pub const MAX_PATH: usize = 4095;
/// Bytes that one step writes: content of a scenario is for reading, large files come from
/// `ftruncate` and `fallocate`.
pub const MAX_CONTENT: usize = 4096;
/// Bytes that one step reads: the subject keeps them in its log.
pub const MAX_READ: i64 = 1 << 20;
/// Events of one `flood`: six times the usual length of a queue (`max_queued_events`, 16,384).
pub const MAX_FLOOD: i64 = 100_000;
/// Bytes of a name that a result is bound to.
pub const MAX_NAME: usize = 32;
/// Values within values: `[{tv_sec=1, tv_nsec=0}, UTIME_OMIT]` is two deep.
pub const MAX_DEPTH: usize = 4;
/// Problems reported in one run: who has made more has given the wrong file.
pub const MAX_PROBLEMS: usize = 50;
