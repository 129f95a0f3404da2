//! Waiting for a superblock to be free: the kernel shows no file handles of one that is being
//! mounted, unmounted, remounted or frozen (`show_mark_fhandle`).

/// How often fdinfo is read while a handle is missing, and how long we wait in between: two seconds
/// in all, which a remount that writes its data back on a busy machine may well take.
pub(crate) const TRIES: u32 = 200;
const WAIT_MS: u8 = 10;

/// Reads until nothing is missing, at most [`TRIES`] times; what was read last.
///
/// # Errors
///
/// Of the first read that fails.
pub(crate) fn settled<T, E>(
    read: impl FnMut() -> Result<T, E>,
    is_missing: impl FnMut(&T) -> bool,
) -> Result<T, E> {
    let wait = || {
        // Nothing tells when a superblock is free again, so we ask at intervals.
        let _ = nix::poll::poll(&mut [], WAIT_MS);
    };
    settled_by(read, is_missing, wait)
}

fn settled_by<T, E>(
    mut read: impl FnMut() -> Result<T, E>,
    mut is_missing: impl FnMut(&T) -> bool,
    mut wait: impl FnMut(),
) -> Result<T, E> {
    for _ in 1..TRIES {
        let found = read()?;
        if !is_missing(&found) {
            return Ok(found);
        }
        wait();
    }
    read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_late_is_waited_for() {
        let (mut n_reads, mut n_waits) = (0, 0);
        let read = || -> Result<u32, ()> {
            n_reads += 1;
            Ok(n_reads)
        };
        let found = settled_by(read, |found| *found < 4, || n_waits += 1);
        assert_eq!((found, n_waits), (Ok(4), 3));
    }

    #[test]
    fn what_never_comes_ends_the_wait() {
        let (mut n_reads, mut n_waits) = (0, 0);
        let read = || -> Result<u32, ()> {
            n_reads += 1;
            Ok(n_reads)
        };
        let found = settled_by(read, |_| true, || n_waits += 1);
        assert_eq!((found, n_waits), (Ok(TRIES), TRIES - 1));
    }

    #[test]
    fn a_read_that_fails_ends_it_at_once() {
        let found = settled_by(|| Err::<u32, _>("gone"), |_| true, || panic!("waits"));
        assert_eq!(found, Err("gone"));
    }
}
